"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from attrs import frozen
from msgspec import to_builtins

from headrace.chains.budget import Budget
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.pace import EngineGoneError, Pace
from headrace.chains.prices import Prices
from headrace.chains.spending import Spending
from headrace.chains.values import Item, as_json
from headrace.client.requests import as_request
from headrace.client.structured.asking import Asking
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
        self.budget = budget

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""
        seen = item.seen()
        system = None if step.system_template is None else step.system_template.render(seen)
        return Asked(step, (step.user_template.render(seen), system))

    async def ask(self, asked: Asked, came: LLMResponse | None = None) -> Done:
        """The answer, or why there is none; raises OutOfBudget where it is not to be asked for.

        ``came`` is an answer that came already, of a batch, and is to be judged.
        """
        step, request = asked.step, request_of(asked)
        with self._spending.bill(step.id) as bill:
            asking: Asking[Any] | None = None
            if came is not None:
                bill.has(came)
                asking = None if step.output is None else asking_of(step, request)
                done = _judged(came, asking)
                if done is not None:
                    return bill.on(done)
            if self.budget is None:
                return bill.on(await self._asked(step, request, asking))
            budget, prices = self.budget
            async with budget.aside(*prices.most(step, request), bill):
                return bill.on(await self._asked(step, request, asking))

    async def _asked(self, step: Step, request: LLMRequest, asking: Asking[Any] | None) -> Done:
        try:
            async with asyncio.timeout(step.timeout_s):
                return await _answered(self._paces[step.engine], step, request, asking)
        except TimeoutError:
            return failed(LLMTimeoutError(f"timeout_s of {step.timeout_s:g} s ran out"))
        except EngineGoneError:
            raise  # no row's fault
        except LLMError as error:
            return failed(error)


def request_of(asked: Asked) -> LLMRequest:
    """What goes to the engine, but for the schema."""
    user, system = asked.said
    messages = [LLMMessage(role="user", content=user)]
    if system is not None:
        messages.insert(0, LLMMessage(role="system", content=system))
    return as_request(messages, None, asked.step.sampling, {})


def asking_of(step: Step, request: LLMRequest) -> Asking[Any]:
    """How its answer is held to the output of ``step``."""
    settings = OutputSettings(
        more_asks=step.asks - 1, budget_tokens=step.ask_tokens, repair=step.repair
    )
    return Asking(request, step.output, settings)


def _judged(came: LLMResponse, asking: Asking[Any] | None) -> Done | None:
    """What ``came`` is good for; None where it is to be asked for again."""
    if asking is None:
        return _done(came.text, came.usage, came.price_usd)
    try:
        made = asking.judge(came)
    except LLMError as error:
        return failed(error)
    return None if made is None else _done(plain(made.output), made.usage, made.price_usd)


async def _answered(
    pace: Pace, step: Step, request: LLMRequest, asking: Asking[Any] | None
) -> Done:
    if step.output is None:
        answer = await pace.answer(step.id, request)
        return _done(answer.text, answer.usage, answer.price_usd)
    asking = asking or asking_of(step, request)
    while True:
        made = asking.judge(await pace.answer(step.id, asking.request))
        if made is not None:
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
