"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

from attrs import frozen
from msgspec import to_builtins

from headrace.chains.budget import Budget
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.pace import EngineGoneError, Pace
from headrace.chains.prices import Prices
from headrace.chains.spending import Spending
from headrace.chains.values import Item, as_json, key_of
from headrace.client.requests import as_request
from headrace.client.structured.asking import Asking
from headrace.client.structured.results import Structured
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

    def key(self, mark: bytes) -> bytes:
        """What its answer is kept by; ``mark`` is the node's."""
        return key_of(mark, as_json(self.said))


class Answering(Protocol):
    """Whoever answers steps."""

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""

    async def ask(self, asked: Asked) -> Done:
        """The answer, or why there is none."""


class Askers:
    """Asks the engines of steps, each at its own pace.

    What they use goes to ``spending``, and is set aside of ``budget`` before, by ``prices``.
    """

    def __init__(
        self,
        paces: Mapping[str, Pace],
        spending: Spending | None = None,
        budget: tuple[Budget, Prices] | None = None,
    ) -> None:
        self._paces = paces
        self._spending = Spending() if spending is None else spending
        self._budget = budget

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""
        seen = item.seen()
        system = None if step.system_template is None else step.system_template.render(seen)
        return Asked(step, (step.user_template.render(seen), system))

    async def ask(self, asked: Asked) -> Done:
        """The answer, or why there is none; raises OutOfBudget where it is not to be asked for."""
        step = asked.step
        user, system = asked.said
        messages = [LLMMessage(role="user", content=user)]
        if system is not None:
            messages.insert(0, LLMMessage(role="system", content=system))
        request = as_request(messages, None, step.sampling, {})
        with self._spending.bill(step.id) as bill:
            if self._budget is None:
                return bill.on(await self._asked(step, request))
            budget, prices = self._budget
            async with budget.aside(*prices.most(step, request), bill):
                return bill.on(await self._asked(step, request))

    async def _asked(self, step: Step, request: LLMRequest) -> Done:
        try:
            async with asyncio.timeout(step.timeout_s):
                return await _answered(self._paces[step.engine], step, request)
        except TimeoutError:
            return _failed(LLMTimeoutError(f"timeout_s of {step.timeout_s:g} s ran out"))
        except EngineGoneError:
            raise  # no row's fault
        except LLMError as error:
            return _failed(error)


async def _answered(pace: Pace, step: Step, request: LLMRequest) -> Done:
    if step.output is None:
        answer = await pace.answer(step.id, request)
        return _done(answer.text, answer)
    settings = OutputSettings(
        more_asks=step.asks - 1, budget_tokens=step.ask_tokens, repair=step.repair
    )
    asking: Asking[Any] = Asking(request, step.output, settings)
    while True:
        made = asking.judge(await pace.answer(step.id, asking.request))
        if made is not None:
            return _done(plain(made.output), made)


def _done(value: Any, answer: LLMResponse | Structured[Any]) -> Done:
    usage, price = answer.usage, answer.price_usd
    counted = usage if isinstance(usage, Usage) else Usage()
    last = answer.response if isinstance(answer, Structured) else answer
    return Done(
        as_json(value),
        prompt_tokens=counted.prompt_tokens or 0,
        completion_tokens=counted.completion_tokens or 0,
        price_usd=None if price is None else str(price),
        whole=last.finish_reason == "stop",
    )


def _failed(error: LLMError) -> Done:
    said = as_json([type(error).__name__, error.message])
    return Done(said, failed=True, passing=error.transient)


def plain(value: Any) -> Any:
    """``value`` as JSON can say it."""
    dump = getattr(value, "model_dump", None)
    return dump(mode="json") if dump is not None else to_builtins(value)
