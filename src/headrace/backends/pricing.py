"""What a call cost, by the provider that answered it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache

from headrace.backends.providers import PROVIDERS
from headrace.contracts.engines import EngineConfig
from headrace.contracts.responses import Usage


def price_of(
    provider_name: str | None, models: Sequence[str | None], usage: Usage, wall_s: float
) -> Decimal | None:
    """US dollars for one call; ``None`` where tokens or rates are unknown.

    ``models`` are the names it may be priced under, the best first; ``wall_s`` is when it was made,
    in Unix seconds. The price data is loaded by the first provider that has prices.
    """
    row = PROVIDERS.get(provider_name or "")
    if row is None or row.prices is None:
        return None
    return _priced()(row.prices, models, usage, wall_s)


def told_price(engine: EngineConfig, usage: Usage) -> Decimal | None:
    """US dollars for one call, by the prices that ``engine`` is said to have; ``None`` without any."""
    asked, answered = engine.input_price_usd, engine.output_price_usd
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    if asked is None or answered is None or prompt is None or completion is None:
        return None
    whole = prompt * Decimal(str(asked)) + completion * Decimal(str(answered))
    return whole.scaleb(-6)


def priced_by(
    engine: EngineConfig, its_provider: str
) -> Callable[[str | None, Sequence[str | None], Usage, float], Decimal | None]:
    """As ``price_of``, where ``engine``, which is asked as ``its_provider``, has prices of its own."""

    def price(
        provider_name: str | None, models: Sequence[str | None], usage: Usage, wall_s: float
    ) -> Decimal | None:
        if provider_name == its_provider and engine.input_price_usd is not None:
            return told_price(engine, usage)
        return price_of(provider_name, models, usage, wall_s)

    return price


@cache
def _priced() -> Callable[..., Decimal | None]:
    # Loaded by the first call that costs something; an import statement in each costs a microsecond.
    from headrace.numbers.price import price_of_call

    return price_of_call


def price_of_batch(
    provider_name: str, models: Sequence[str | None], usage: Usage, wall_s: float
) -> Decimal | None:
    """US dollars for one request of a batch; ``None`` where tokens or rates are unknown."""
    from headrace.numbers.price import price_of_call

    row = PROVIDERS.get(provider_name)
    if row is None or row.prices is None:
        return None
    return price_of_call(row.prices, models, usage, wall_s, batch=True)
