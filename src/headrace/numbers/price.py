"""What a call costs, in US dollars, by its tokens and published rates.

The rates come from genai-prices, which carries them along and asks nobody. They are resolved once
for a provider, a model and a day into Rates of our own; a call's price is then five products of
Decimals, never by way of a float. Where a rate or a count is missing the price is ``None``: an
unknown is not a zero. So it is for a model on one's own machine, which costs electricity and time
that we do not see; a zero would make it the cheapest of all by decree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, timedelta, timezone
from decimal import Context, Decimal
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from attrs import fields, frozen

from headrace.contracts.responses import Usage
from headrace.numbers.usage import fill_totals, input_parts, output_parts

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo

# Wide enough that no product or sum is rounded, whatever the caller's own context says.
_EXACT = Context(prec=80)
_DAY_0 = date(1970, 1, 1).toordinal()
# Ours to genai-prices' (https://github.com/pydantic/genai-prices, ModelPrice), the nearest first:
# where a kind of token has no rate of its own, that of its whole side holds.
_RATES: Mapping[str, tuple[str, ...]] = {
    "input_uncached": ("input_mtok",),
    "input_cache_read": ("cache_read_mtok", "input_mtok"),
    "input_cache_write": ("cache_write_mtok", "cache_write_5m_mtok", "input_mtok"),
    "output_text": ("output_text_mtok", "output_mtok"),
    "output_reasoning": ("output_reasoning_mtok", "output_mtok"),
}


@frozen(kw_only=True)
class TokenRates:
    """US dollars per million tokens of each kind; ``None`` is unknown.

    They hold for a call with more than ``above_input_tokens`` tokens of input, for all of its
    tokens.
    """

    above_input_tokens: int = 0
    input_uncached: Decimal | None = None
    input_cache_read: Decimal | None = None
    input_cache_write: Decimal | None = None
    output_text: Decimal | None = None
    output_reasoning: Decimal | None = None


@frozen(kw_only=True)
class Rates:
    """The rates of one model; ``steps`` rise by ``above_input_tokens`` and begin at 0.

    ``source`` names the data and its version, ``model`` the name it has there, ``on`` the day
    (UTC, ISO 8601) that they hold for. ``by_hour`` are rates that hold within some hours of that day instead.
    """

    steps: tuple[TokenRates, ...]
    source: str
    model: str
    on: str
    by_hour: tuple[HourlyRates, ...] = ()


@frozen(kw_only=True)
class HourlyRates:
    """Rates between two times of a day, in seconds after midnight UTC; ``end_s`` excluded."""

    begin_s: float
    end_s: float
    steps: tuple[TokenRates, ...]


def price(usage: Usage | None, rates: Rates | None, at: datetime | None = None) -> Decimal | None:
    """US dollars: the sum of tokens x rate / 1,000,000 over the five kinds of token.

    ``at`` is when the call was made, for rates that depend on the hour; without it those of the
    rest of the day are taken. Kinds that a backend does not tell apart are taken as uncached input
    and text output, which are the dearer and the usual.

    >>> usage = Usage(prompt_tokens=1000, completion_tokens=100)
    >>> step = TokenRates(input_uncached=Decimal("2.5"), output_text=Decimal("10"))
    >>> rates = Rates(steps=(step,), source="me", model="m", on="2026-01-01")
    >>> price(usage, rates)
    Decimal('0.0035000')
    """
    if usage is None or rates is None:
        return None
    tokens = _kinds(usage)
    if tokens is None:
        return None
    uncached, read, write, text, reasoning = tokens
    in_all = uncached + read + write
    step, *higher = rates.steps if at is None else _steps_at(rates, at)
    for each in higher:
        if in_all > each.above_input_tokens:
            step = each
    total = Decimal(0)
    for count, rate in (
        (uncached, step.input_uncached),
        (read, step.input_cache_read),
        (write, step.input_cache_write),
        (text, step.output_text),
        (reasoning, step.output_reasoning),
    ):
        if count:
            if rate is None:
                return None
            total = _EXACT.fma(count, rate, total)
    return _EXACT.scaleb(total, -6)


def rates_of(provider: str | None, model: str | None, on: date) -> Rates | None:
    """The rates of ``model`` at ``provider`` on a day (UTC); ``None`` where nobody published any.

    ``provider`` is the name in the price data (a provider row's ``prices``). The first call loads
    the data, which takes a tenth of a second: ``load`` does so ahead of time.
    """
    if provider is None or not model:
        return None
    return _resolved(provider, model, on)


def price_of_call(
    provider: str | None,
    models: Iterable[str | None],
    usage: Usage | None,
    wall_s: float,
    *,
    batch: bool = False,
) -> Decimal | None:
    """US dollars for one call; ``None`` where tokens or rates are unknown.

    One of a ``batch`` has rates of its own. Where the data has none for the model, it is half of the
    usual price, which is what all who publish it ask.

    ``models`` are the names it may be priced under, the best first: what the answer says, then what
    was asked for. ``wall_s`` is when it was made, in Unix seconds.
    """
    if provider is None or usage is None:
        return None
    for model in models:
        rates = model and _on_day(provider, model, int(wall_s // 86400))
        if model and rates:
            at = datetime.fromtimestamp(wall_s, timezone.utc) if rates.by_hour else None
            if not batch:
                return price(usage, rates, at)
            own = _of_batches(provider, model, int(wall_s // 86400))
            if own is not None:
                return price(usage, own)
            usual = price(usage, rates, at)
            return None if usual is None else usual / 2
    return None


def context_window(provider: str | None, model: str | None) -> int | None:
    """The most tokens that ``model`` takes as input, as the price data has it."""
    if provider is None or not model:
        return None
    found = _find(provider, model)
    return None if found is None else found.context_window


def listed_models(provider: str | None) -> tuple[str, ...]:
    """The models of ``provider`` that the price data knows, those about to be removed left out."""
    if provider is None:
        return ()
    for each in _snapshot().providers:
        if each.id == provider:
            return tuple(info.id for info in each.models if not info.deprecated)
    return ()


def load() -> None:
    """Load the price data now, so that no call waits for it."""
    _snapshot()


def _kinds(usage: Usage) -> tuple[int, int, int, int, int] | None:
    """The tokens of each kind, in the order of _RATES; ``None`` where not even the sides' totals
    are known."""
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        usage = fill_totals(usage)
    if usage.prompt_tokens is None or usage.completion_tokens is None:
        return None
    read, write = usage.input_cache_read_tokens or 0, usage.input_cache_write_tokens or 0
    reasoning = usage.output_reasoning_tokens or 0
    # What is not told may follow from what is.
    if usage.input_uncached_tokens is not None:
        _, read, write = (part or 0 for part in input_parts(usage))
    if usage.output_text_tokens is not None:
        _, reasoning = (part or 0 for part in output_parts(usage))
    uncached = max(0, usage.prompt_tokens - read - write)
    text = max(0, usage.completion_tokens - reasoning)
    return uncached, read, write, text, reasoning


def _steps_at(rates: Rates, at: datetime) -> tuple[TokenRates, ...]:
    if rates.by_hour:
        moment = at.astimezone(timezone.utc)
        second = (
            moment - moment.replace(hour=0, minute=0, second=0, microsecond=0)
        ).total_seconds()
        for hours in rates.by_hour:
            if hours.begin_s <= second < hours.end_s:
                return hours.steps
    return rates.steps


# Bounded: model names come from callers.
@lru_cache(maxsize=1024)
def _on_day(provider: str, model: str, day: int) -> Rates | None:
    """``day`` counts from 1970-01-01."""
    return _resolved(provider, model, date.fromordinal(_DAY_0 + day))


@lru_cache(maxsize=1024)
def _of_batches(provider: str, model: str, day: int) -> Rates | None:
    """The rates of batches on that day; ``None`` where the data has none that differ."""
    info = _find(provider, model)
    noon = datetime.combine(
        date.fromordinal(_DAY_0 + day), datetime.min.time(), timezone.utc
    ) + timedelta(hours=12)
    if info is None or not info.price_variants:
        return None
    usual, own = info.get_prices(noon), info.get_prices(noon, {"processing": "batch"})
    if own == usual:
        return None
    return Rates(steps=_steps(own), source=_source(), model=info.id, on=noon.date().isoformat())


@lru_cache(maxsize=1024)
def _resolved(provider: str, model: str, on: date) -> Rates | None:
    info = _find(provider, model)
    if info is None:
        return None
    midnight = datetime(on.year, on.month, on.day, tzinfo=timezone.utc)
    edges = _edges(info)
    pieces = [
        (begin, end, _steps(info.get_prices(midnight + timedelta(seconds=begin))))
        for begin, end in pairwise(edges)
    ]
    # The rates of the day's longest part are the usual ones.
    usual = max(pieces, key=lambda piece: piece[1] - piece[0])[2]
    if not usual:
        return None
    return Rates(
        steps=usual,
        by_hour=tuple(
            HourlyRates(begin_s=begin, end_s=end, steps=steps)
            for begin, end, steps in pieces
            if steps and steps != usual
        ),
        source=_source(),
        model=info.id,
        on=on.isoformat(),
    )


def _edges(info: ModelInfo) -> list[float]:
    """The seconds of a day at which another price may begin, 0 and 86400 included."""
    from genai_prices.types import TimeOfDateConstraint

    edges = {0.0, 86400.0}
    for conditional in info.prices if isinstance(info.prices, list) else ():
        if isinstance(conditional.constraint, TimeOfDateConstraint):
            for moment in (conditional.constraint.start_time, conditional.constraint.end_time):
                day = datetime(2000, 1, 1, tzinfo=timezone.utc)
                at = datetime.combine(day, moment)
                at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at
                edges.add((at - day).total_seconds() % 86400)
    return sorted(edges)


def _steps(listed: Any) -> tuple[TokenRates, ...]:
    """One TokenRates for each number of input tokens from which other prices hold."""
    from genai_prices.types import TieredPrices

    prices = {
        kind: next((p for p in (getattr(listed, n) for n in names) if p is not None), None)
        for kind, names in _RATES.items()
    }
    if prices["input_uncached"] is None and prices["output_text"] is None:
        return ()  # priced by the hour, page or request: not by what we count
    starts = {0} | {
        tier.start for p in prices.values() if isinstance(p, TieredPrices) for tier in p.tiers
    }

    def at(listed_price: Any, start: int) -> Decimal | None:
        if not isinstance(listed_price, TieredPrices):
            return listed_price  # type: ignore[no-any-return]
        reached = [tier.price for tier in listed_price.tiers if tier.start <= start]
        return reached[-1] if start and reached else listed_price.base

    return tuple(
        TokenRates(above_input_tokens=start, **{kind: at(prices[kind], start) for kind in prices})
        for start in sorted(starts)
    )


@lru_cache(maxsize=1024)
def _find(provider: str, model: str) -> ModelInfo | None:
    snapshot = _snapshot()
    try:
        # Not the snapshot's own look-up: it remembers every name that it did not find.
        for each in snapshot.providers:
            if each.id == provider:
                found: ModelInfo | None = each.find_model(model, all_providers=snapshot.providers)
                return found
    except (LookupError, ValueError):
        pass
    return None


@lru_cache(maxsize=1)
def _snapshot() -> Any:
    from genai_prices.data_snapshot import get_snapshot

    return get_snapshot()


@lru_cache(maxsize=1)
def _source() -> str:
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


assert set(_RATES) == {each.name for each in fields(TokenRates)} - {"above_input_tokens"}
