"""What the configuration says of second requests where a route's first token is late."""

from __future__ import annotations

from attrs import field, frozen

from headrace.gateway.fields import at_least, between
from headrace.traffic.hedge import HedgePolicy, Hedging


@frozen(kw_only=True)
class HedgeConfig:
    """A route whose first token is late is asked a second time, at the next of its backends that is
    well and has room; the first of the two to bring output answers, the other is left at once.

    Such a route's requests are all translated (docs/how-to/hedge-slow-requests.md).
    """

    enabled: bool = field(default=True, metadata={"help": "false: as if it were not there"})
    after_p: float = field(
        default=0.95,
        validator=between(0.5, 0.9999),
        metadata={"help": "late is what takes longer than this share of the route's last ones"},
    )
    after_ms: int | None = field(
        default=None,
        validator=at_least(1),
        metadata={"help": "late is what takes longer than this; in place of after_p"},
    )
    max_extra: float = field(
        default=0.05,
        validator=between(0.0001, 1),
        metadata={"help": "second requests at most, as a share of the route's requests"},
    )
    min_samples: int = field(
        default=100,
        validator=at_least(20),
        metadata={"help": "first tokens that have to be seen before after_p means anything"},
    )
    same_backend: bool = field(
        default=False,
        metadata={"help": "where no other backend is left, ask the same one once more"},
    )


def hedging_of(config: HedgeConfig | None) -> Hedging | None:
    """What a route's calls share to be hedged by; ``None`` where they are not."""
    if config is None or not config.enabled:
        return None
    return Hedging(
        HedgePolicy(
            after_p=config.after_p,
            after_s=None if config.after_ms is None else config.after_ms / 1000,
            max_extra=config.max_extra,
            min_samples=config.min_samples,
            same_backend=config.same_backend,
        )
    )
