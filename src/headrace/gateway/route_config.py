"""What the configuration says of one model that several backends answer for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.fields import at_least, between
from headrace.gateway.hedge_config import HedgeConfig

Policy: TypeAlias = Literal[
    "ordered", "weighted", "least_busy", "lowest_latency", "lowest_cost", "task_profile"
]
_BY_WEIGHT = ("weighted", "least_busy")


def is_pattern(name: str) -> bool:
    """Whether ``name`` stands for many."""
    return "*" in name or "?" in name


def _plain(_: object, attribute: Any, name: str) -> None:
    if not name or is_pattern(name):
        raise ValueError(
            f"{name!r}, must be a name without * and ?; those go into aliases", attribute
        )


@frozen(kw_only=True)
class WayConfig:
    """One backend of a route. Of a ``weighted`` route it gets the share ``weight`` of all weights; of a
    ``least_busy`` one, or one with an affinity, a load in proportion to it.
    """

    backend: str = field(
        metadata={"help": "the name of one of backends or engines, or of the model in the box"}
    )
    model: str | None = field(
        default=None,
        metadata={"help": "its own name for the model; the one that the caller used, if left out"},
    )
    weight: float = field(
        default=1.0,
        validator=between(0, 1_000_000),
        metadata={"help": "its share of the calls, or its size; 0: only where others fail"},
    )
    quality: float | None = field(
        default=None,
        validator=between(0, 1),
        metadata={"help": "how good its answers are, in your view, from 0 to 1 (task_profile)"},
    )
    tags: tuple[str, ...] = field(
        default=(), metadata={"help": "what a caller's task profile may ask for by these words"}
    )
    input_price_usd: float | None = field(
        default=None,
        validator=between(0, 1_000_000),
        metadata={
            "help": "US dollars for a million tokens of prompt, to choose by; as its provider "
            "publishes, if left out"
        },
    )
    output_price_usd: float | None = field(
        default=None,
        validator=between(0, 1_000_000),
        metadata={"help": "the same for tokens of answers; to be given together"},
    )


@frozen(kw_only=True)
class RouteConfig:
    """A model that several backends answer for: where one fails before its answer began, the next.

    ``ordered`` asks them in the order in which they stand here, ``weighted`` gives each its share
    and goes on to the others; ``least_busy``, ``lowest_latency``, ``lowest_cost`` and
    ``task_profile`` look for the best one for each call (docs/how-to/route-requests.md). One that
    fails often, or asks for patience, is asked last until it is well again (docs/operations.md).
    """

    name: str = field(validator=_plain, metadata={"help": "the model's name for callers"})
    aliases: tuple[str, ...] = field(
        default=(), metadata={"help": "further names, * and ? as wildcards, that lead here"}
    )
    policy: Policy = field(
        default="ordered",
        metadata={
            "help": "ordered, weighted, least_busy, lowest_latency, lowest_cost or task_profile"
        },
    )
    affinity: Literal["none", "session", "prefix"] = field(
        default="none",
        metadata={
            "help": "before the policy, the same backend for requests that belong together: by their "
            "session, or by the head of their prompt"
        },
    )
    session_by: tuple[str, ...] = field(
        default=("x-headrace-session", "prompt_cache_key", "user"),
        metadata={
            "help": "what tells a session, the first that a request has: headers by their names, "
            "user, prompt_cache_key, metadata.NAME"
        },
    )
    prefix_bytes: int = field(
        default=1024,
        validator=between(1, 1_000_000),
        metadata={"help": "how much of a prompt, up to its first user turn, is its head"},
    )
    affinity_load: float = field(
        default=1.25,
        validator=between(1, 1000),
        metadata={
            "help": "one that has so many times the mean of requests at once passes further ones on"
        },
    )
    latency_of: Literal["answer", "first_token"] = field(
        default="answer",
        metadata={"help": "what lowest_latency measures: whole answers, or their first tokens"},
    )
    unknown: Literal["refuse", "allow"] = field(
        default="refuse",
        metadata={
            "help": "whether a backend may be asked where nobody can tell that it is within a "
            "caller's limit, for want of a price or of measured answers"
        },
    )
    answer_tokens: int = field(
        default=1024,
        validator=at_least(1),
        metadata={"help": "how long an answer is taken to get that no max_tokens bounds"},
    )
    backends: tuple[WayConfig, ...] = field(
        metadata={"help": "who answers: a list of backend, model and what is said of it"}
    )
    hedge: HedgeConfig | None = field(
        default=None, metadata={"help": "a second request where the first token is late"}
    )


def check_routes(
    routes: Sequence[RouteConfig], backends: Sequence[BackendConfig], ours: Sequence[str]
) -> None:
    """Raise LLMInvalidRequestError, naming the field, where ``routes`` name what is not there.

    ``ours`` are the names of our own models and of the engines that we start, which are backends
    too.
    """
    known, taken = [*(backend.name for backend in backends), *ours], dict[str, str]()
    fixed = {backend.name: backend.model for backend in backends if backend.model is not None}
    for i, route in enumerate(routes):
        here = f"routes[{i}]"
        for place, name in _names(route, here):
            if name in taken:
                _refuse(f"{name!r} is the name of {taken[name]} already; choose another", place)
            taken[name] = place
        _check_ways(route, here, known, fixed)
        _check_hedge(route, here)


def _names(route: RouteConfig, here: str) -> list[tuple[str, str]]:
    aliases = [(f"{here}.aliases[{j}]", alias) for j, alias in enumerate(route.aliases)]
    return [(f"{here}.name", route.name), *aliases]


def _check_ways(route: RouteConfig, here: str, known: list[str], fixed: Mapping[str, str]) -> None:
    ways = route.backends
    if not ways:
        _refuse("no backend is named, must be at least one", f"{here}.backends")
    for j, way in enumerate(ways):
        place = f"{here}.backends[{j}]"
        if way.backend not in known:
            near = get_close_matches(way.backend, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            _refuse(
                f"unknown backend {way.backend!r}; {hint}known: {', '.join(known) or 'none'}",
                f"{place}.backend",
            )
        if known.count(way.backend) > 1:
            _refuse(
                f"two backends are named {way.backend!r}; give one of them another name",
                f"{place}.backend",
            )
        if way.backend in [other.backend for other in ways[:j]]:
            _refuse(f"{way.backend!r} stands here twice; leave one out", f"{place}.backend")
        if way.model is not None and way.backend in fixed:
            _refuse(
                f"{way.model!r}, but the backend is always asked for {fixed[way.backend]!r} (its "
                "own 'model'); leave one of the two out",
                f"{place}.model",
            )
        if route.policy not in _BY_WEIGHT and route.affinity == "none" and way.weight != 1:
            _refuse(
                f"{way.weight:g}, but the policy is {route.policy!r} and knows no weights; leave it "
                "out, or choose 'weighted' or 'least_busy'",
                f"{place}.weight",
            )
        if (way.input_price_usd is None) != (way.output_price_usd is None):
            missing = "input" if way.input_price_usd is None else "output"
            _refuse("left out, but the other price is given", f"{place}.{missing}_price_usd")
    if not any(way.weight for way in ways):
        _refuse("every weight is 0, must be more for at least one", f"{here}.backends")


def _check_hedge(route: RouteConfig, here: str) -> None:
    hedge = route.hedge
    if hedge is None or not hedge.enabled or hedge.same_backend or len(route.backends) > 1:
        return
    _refuse(
        "the route has one backend, and nobody else could be asked; name another one, or set "
        "same_backend: true",
        f"{here}.hedge",
    )


def _refuse(what: str, place: str) -> None:
    raise LLMInvalidRequestError(f"{what} @ $.{place}", param=place)
