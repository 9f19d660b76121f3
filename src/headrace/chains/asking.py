"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from msgspec import to_builtins

from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.values import Item, as_json
from headrace.client.async_client import AsyncClient
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import LLMError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest


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

    async def ask(self, asked: Asked) -> Done:
        """The answer, or why there is none."""
        step = asked.step
        user, system = asked.said
        messages = [LLMMessage(role="user", content=user)]
        if system is not None:
            messages.insert(0, LLMMessage(role="system", content=system))
        sampling = step.sampling
        request = LLMRequest(
            messages=messages,
            temperature=sampling.temperature,
            max_tokens=sampling.max_tokens,
            provider_options=sampling.provider_options,
            tools=sampling.tools,
            tool_choice=sampling.tool_choice,
        )
        client = self._clients[step.engine]
        async with self._places[step.engine]:
            try:
                if step.output is None:
                    answer = await client.generate(request)
                    value: Any = answer.text
                    usage, price = answer.usage, answer.price_usd
                else:
                    made = await client.generate(
                        request,
                        output=step.output,
                        output_settings=OutputSettings(more_asks=step.asks - 1, repair=step.repair),
                    )
                    value, usage, price = plain(made.output), made.usage, made.price_usd
            except LLMError as error:
                said = as_json([type(error).__name__, error.message])
                return Done(said, failed=True, passing=error.transient)
        return Done(
            as_json(value),
            prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
            completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
            price_usd=None if price is None else str(price),
        )


def plain(value: Any) -> Any:
    """``value`` as JSON can say it."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else to_builtins(value)
