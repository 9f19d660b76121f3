"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from attrs import frozen

from headrace.chains.abilities import Ability
from headrace.chains.budget import Budget
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.pace import EngineGoneError, Pace
from headrace.chains.prices import Prices
from headrace.chains.rounds import with_tools
from headrace.chains.spending import Spending
from headrace.chains.values import Item, as_json, plain
from headrace.client.requests import as_request
from headrace.client.structured.asking import Asking
from headrace.client.structured.kinds import Unfit
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMTimeoutError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMChatParams, LLMRequest
from headrace.contracts.responses import Usage


@frozen
class Asked:
    """What a step asks of one value."""

    step: Step
    said: tuple[str, str | None]
    sampling: LLMChatParams


class Askers:
    """Asks the engines of steps, each at its own pace.

    What they use goes to ``spending``, and is set aside of ``budget`` before, by ``prices``. Steps of
    ``abilities``, by their ids, are asked without what their engine cannot carry out.
    """

    def __init__(
        self,
        paces: Mapping[str, Pace],
        spending: Spending | None = None,
        budget: tuple[Budget, Prices] | None = None,
        abilities: Mapping[str, Ability] | None = None,
    ) -> None:
        self._paces = paces
        self._spending = Spending() if spending is None else spending
        self._budget = budget
        self._samplings = {name: each.sampling for name, each in (abilities or {}).items()}

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""
        if step.reader is not None:
            try:
                step.reader(item.value)
            except Unfit as error:
                raise LLMInvalidRequestError(
                    f"{step.id}.input is not what comes: {error}", param=f"{step.id}.input"
                ) from error
        seen = item.seen()
        system = None if step.system_template is None else step.system_template.render(seen)
        sampling = self._samplings.get(step.id, step.sampling)
        return Asked(step, (step.user_template.render(seen), system), sampling)

    async def ask(self, asked: Asked) -> Done:
        """The answer, or why there is none; raises OutOfBudget where it is not to be asked for."""
        step = asked.step
        user, system = asked.said
        messages = [LLMMessage(role="user", content=user)]
        if system is not None:
            messages.insert(0, LLMMessage(role="system", content=system))
        request = as_request(messages, None, asked.sampling, {})
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
    if step.output is None and not step.tools:
        answer = await pace.answer(step.id, request)
        return _done(answer.text, answer.usage, answer.price_usd)
    settings = OutputSettings(
        more_asks=step.asks - 1,
        budget_tokens=step.ask_tokens,
        repair=step.repair,
        instruction=step.instruction,
    )
    if step.tools:
        answered = await with_tools(partial(pace.answer, step.id), step, request, settings)
        return _done(plain(answered.value), answered.usage, answered.price_usd)
    asking: Asking[Any] = Asking(request, step.output, settings)
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


def _failed(error: LLMError) -> Done:
    said = as_json([type(error).__name__, error.message])
    return Done(said, failed=True, passing=error.transient)
