"""Steps as requests, and their answers as what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from attrs import frozen

from headrace.chains.abilities import Ability
from headrace.chains.budget import Budget
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.chains.pace import EngineGoneError, Pace, Paced
from headrace.chains.pictures import Picture, Room, pictures_of, with_pictures
from headrace.chains.prices import Prices
from headrace.chains.rounds import Answered, with_tools
from headrace.chains.spending import Spending
from headrace.chains.values import Item, as_json, key_of, plain
from headrace.client.requests import as_request
from headrace.client.structured.asking import Asking
from headrace.client.structured.kinds import Unfit
from headrace.client.structured.results import Structured
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMTimeoutError
from headrace.contracts.messages import ContentPart, LLMMessage
from headrace.contracts.quick import changed
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage


@frozen
class Asked:
    """What a step asks of one value."""

    step: Step
    said: tuple[str, str | None]
    pictures: tuple[Picture, ...] = ()

    def key(self, mark: bytes) -> bytes:
        """What its answer is kept by; ``mark`` is the node's."""
        return key_of(mark, as_json(self.said), *(each.digest for each in self.pictures))


class Answering(Protocol):
    """Whoever answers steps."""

    def written(self, step: Step, item: Item) -> Asked:
        """What ``step`` asks of ``item``; raises LLMInvalidRequestError where it cannot be written."""

    async def ask(self, asked: Asked) -> Done:
        """The answer, or why there is none."""


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
        self.budget = budget
        self._room = Room()
        self._samplings = {name: each.sampling for name, each in (abilities or {}).items()}
        # What is the same for all rows is made once: it is a good part of what asking takes.
        self._alike: dict[str, tuple[LLMRequest, OutputSettings]] = {}

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
        pictures = pictures_of(step.image_expressions, seen)
        return Asked(step, (step.user_template.render(seen), system), pictures)

    async def ask(self, asked: Asked, came: LLMResponse | None = None) -> Done:
        """The answer, or why there is none; raises OutOfBudget where it is not to be asked for.

        ``came`` is an answer that came already, of a batch, and is to be judged.
        """
        step = asked.step
        if not asked.pictures:
            return await self._paid(step, self._request(asked, asked.said[0]), came)
        async with self._room.of(asked.pictures):
            try:
                content = await asyncio.to_thread(with_pictures, asked.said[0], asked.pictures)
            except LLMError as error:
                return failed(error)
            return await self._paid(step, self._request(asked, content), came)

    async def request_of(self, asked: Asked) -> LLMRequest:
        """What is asked, the schema of the answer included; raises an LLMError."""
        content: str | tuple[ContentPart, ...] = asked.said[0]
        if asked.pictures:
            async with self._room.of(asked.pictures):
                content = await asyncio.to_thread(with_pictures, asked.said[0], asked.pictures)
        request = self._request(asked, content)
        return request if asked.step.output is None else self._asking(asked.step, request).request

    async def _paid(self, step: Step, request: LLMRequest, came: LLMResponse | None) -> Done:
        with self._spending.bill(step.id) as bill:
            asking: Asking[Any] | None = None
            if came is not None:
                bill.has(came)
                asking = None if step.output is None else self._asking(step, request)
                done = _judged(came, asking)
                if done is not None:
                    return bill.on(done)
            if self.budget is None:
                return bill.on(await self._asked(step, request, asking))
            budget, prices = self.budget
            async with budget.aside(*prices.most(step, request), bill):
                return bill.on(await self._asked(step, request, asking))

    async def _asked(self, step: Step, request: LLMRequest, asking: Asking[Any] | None) -> Done:
        client = self._paces[step.engine].of(step.id)
        try:
            if step.timeout_s is None:
                return await self._answered(client, step, request, asking)
            async with asyncio.timeout(None) as limit:
                client = client.telling(partial(_begin, limit, step.timeout_s))
                return await self._answered(client, step, request, asking)
        except TimeoutError:
            return failed(LLMTimeoutError(f"timeout_s of {step.timeout_s:g} s ran out"))
        except EngineGoneError:
            raise  # no row's fault
        except LLMError as error:
            return failed(error)

    def _request(self, asked: Asked, content: str | tuple[ContentPart, ...]) -> LLMRequest:
        messages = [LLMMessage(role="user", content=content)]
        system = asked.said[1]
        if system is not None:
            messages.insert(0, LLMMessage(role="system", content=system))
        return changed(self._alike_of(asked.step)[0], messages=tuple(messages))

    def _alike_of(self, step: Step) -> tuple[LLMRequest, OutputSettings]:
        """What ``step`` asks but for what it says, and how its answer is read."""
        alike = self._alike.get(step.id)
        if alike is None:
            sampling = self._samplings.get(step.id, step.sampling)
            settings = OutputSettings(
                more_asks=step.asks - 1,
                budget_tokens=step.ask_tokens,
                repair=step.repair,
                instruction=step.instruction,
            )
            alike = self._alike[step.id] = as_request((), None, sampling, {}), settings
        return alike

    def _asking(self, step: Step, request: LLMRequest) -> Asking[Any]:
        return Asking(request, step.output, self._alike_of(step)[1])

    async def _answered(
        self, client: Paced, step: Step, request: LLMRequest, asking: Asking[Any] | None
    ) -> Done:
        settings = self._alike_of(step)[1]
        while asking is not None:  # one answer has come, and will not do
            again = asking.judge(await client.generate(asking.request))
            if again is not None:
                return _done(plain(again.output), again, whole=_is_whole(again.response))
        if step.tools:
            answered = await with_tools(client.generate, step, request, settings)
            return _done(plain(answered.value), answered)
        if step.output is None:
            answer = await client.generate(request)
            return _done(answer.text, answer, whole=_is_whole(answer))
        made = await client.generate(request, output=step.output, output_settings=settings)
        return _done(plain(made.output), made, whole=_is_whole(made.response))


def _judged(came: LLMResponse, asking: Asking[Any] | None) -> Done | None:
    """What ``came`` is good for; None where it is to be asked for again."""
    if asking is None:
        return _done(came.text, came, whole=_is_whole(came))
    try:
        made = asking.judge(came)
    except LLMError as error:
        return failed(error)
    if made is None:
        return None
    return _done(plain(made.output), made, whole=_is_whole(made.response))


def _is_whole(response: LLMResponse) -> bool:
    return response.finish_reason == "stop"


def _begin(limit: asyncio.Timeout, seconds: float) -> None:
    if limit.when() is None:
        limit.reschedule(asyncio.get_running_loop().time() + seconds)


def _done(
    value: Any, answer: LLMResponse | Structured[Any] | Answered, *, whole: bool = False
) -> Done:
    usage, price = answer.usage, answer.price_usd
    counted = usage if isinstance(usage, Usage) else Usage()
    return Done(
        as_json(value),
        prompt_tokens=counted.prompt_tokens or 0,
        completion_tokens=counted.completion_tokens or 0,
        price_usd=None if price is None else str(price),
        whole=whole,
    )


def failed(error: LLMError) -> Done:
    """That there is no answer, and why."""
    said = as_json([type(error).__name__, error.message])
    return Done(said, failed=True, passing=error.transient)
