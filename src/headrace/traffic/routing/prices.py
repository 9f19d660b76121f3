"""What a call would cost at a backend, by the prices that its provider publishes."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.backends.pricing import price_of
from headrace.backends.remote import Remote
from headrace.contracts.protocols import Backend
from headrace.contracts.responses import Usage
from headrace.net.clock import Clock
from headrace.traffic.routing.candidate import PriceOf


def published(backend: Backend, clock: Clock) -> PriceOf:
    """The prices of ``backend`` as they are when they are asked for; unknown of what is our own."""
    if not isinstance(backend, Remote):
        return lambda *_: None
    provider, own_model = backend.provider.name, backend.model

    def price(model: str | None, prompt_tokens: int, answer_tokens: int) -> float | None:
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=answer_tokens)
        usd = price_of(provider, (own_model or model,), usage, clock.wall())
        return None if usd is None else float(usd)

    return price


def told(input_usd: float, output_usd: float) -> PriceOf:
    """Prices that somebody names, in US dollars for a million tokens of prompt and of answer."""

    def price(_: str | None, prompt_tokens: int, answer_tokens: int) -> float | None:
        return (prompt_tokens * input_usd + answer_tokens * output_usd) / 1e6

    return price


def load_prices(backends: Iterable[Backend]) -> None:
    """Have published prices at hand where a call will ask for them: to load them takes a while."""
    if any(isinstance(each, Remote) and each.provider.prices for each in backends):
        from headrace.numbers.price import load

        load()
