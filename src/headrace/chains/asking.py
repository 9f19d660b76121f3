"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import frozen
from msgspec import to_builtins

from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.values import Item, as_json
from headrace.client.async_client import AsyncClient
from headrace.client.requests import as_request
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import LLMError, LLMTimeoutError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage


@frozen
class Asked:
    """What a step asks of one value."""

    step: Step
    said: tuple[str, str | None]


class Askers:
    """Clients by engine. ``concurrency`` requests are under way at each at most."""

    def __init__(self, clients: Mapping[str, AsyncClient], concurrency: int) -> None:
        self._clients = clients
        self._places = {name: asyncio.Semaphore(concurrency) for name in clients}

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""
        seen = item.seen()
        system = None if step.system_template is None else step.system_template.render(seen)
        return Asked(step, (step.user_template.render(seen), system))

    async def ask(self, asked: Asked, came: LLMResponse | None = None) -> Done:
        """The answer, or why there is none. ``came`` is one that came already, to be judged."""
        step, request = asked.step, request_of(asked)
        client = self._clients[step.engine]
        async with self._places[step.engine]:
            try:
                async with asyncio.timeout(step.timeout_s):
                    try:
                        return await _answered(client, step, request, came)
                    except LLMError as error:
                        if not error.transient:
                            raise
                        # The client asks nobody again who had begun to answer, since some of that
                        # may be in use already. Of a step's answer nothing is, before it is whole.
                        return await _answered(client, step, request, came)
            except TimeoutError:
                return failed(LLMTimeoutError(f"timeout_s of {step.timeout_s:g} s ran out"))
            except LLMError as error:
                return failed(error)


def request_of(asked: Asked) -> LLMRequest:
    """What goes to the engine, but for the schema."""
    user, system = asked.said
    messages = [LLMMessage(role="user", content=user)]
    if system is not None:
        messages.insert(0, LLMMessage(role="system", content=system))
    return as_request(messages, None, asked.step.sampling, {})


def settings_of(step: Step) -> OutputSettings:
    """How its answer is held to its output."""
    return OutputSettings(more_asks=step.asks - 1, repair=step.repair)


async def _answered(
    client: AsyncClient, step: Step, request: LLMRequest, came: LLMResponse | None
) -> Done:
    if step.output is None:
        answer = came or await client.generate(request)
        return _done(answer.text, answer.usage, answer.price_usd)
    settings = settings_of(step)
    if came is None:
        made = await client.generate(request, output=step.output, output_settings=settings)
    else:
        made = await client.judge(request, came, output=step.output, output_settings=settings)
    return _done(plain(made.output), made.usage, made.price_usd)


def _done(value: Any, usage: object, price: Decimal | None) -> Done:
    counted = usage if isinstance(usage, Usage) else Usage()
    return Done(
        as_json(value),
        prompt_tokens=counted.prompt_tokens or 0,
        completion_tokens=counted.completion_tokens or 0,
        price_usd=None if price is None else str(price),
    )


def failed(error: LLMError) -> Done:
    """That there is no answer, and why."""
    said = as_json([type(error).__name__, error.message])
    return Done(said, failed=True, passing=error.transient)


def plain(value: Any) -> Any:
    """``value`` as JSON can say it."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else to_builtins(value)
