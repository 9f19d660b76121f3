"""A step with tools: the model's calls are made and answered until it answers itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any, TypeAlias

from attrs import evolve, frozen

from headrace.backends.structured import told
from headrace.chains.nodes import Step
from headrace.chains.tools import Tool, ToolFailed
from headrace.client.structured.asking import Asking
from headrace.client.structured.kinds import kind_of
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.errors import LLMOutputError
from headrace.contracts.messages import LLMMessage, ToolCall
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.numbers.usage import add_usages

Answer: TypeAlias = Callable[[LLMRequest], Awaitable[LLMResponse]]


@frozen
class Answered:
    """What came at the end, and what all of the rounds together took."""

    value: Any
    usage: Usage | None
    price_usd: Decimal | None


async def with_tools(
    answer: Answer, step: Step, request: LLMRequest, settings: OutputSettings
) -> Answered:
    """The answer of ``step``, whose model may call its tools ``max_tool_rounds`` times before.

    Where the answer is an object its schema is told in words, since no engine holds an answer to a
    schema that may be a call as well; an answer that does not meet it is asked for again without
    tools. Raises an LLMError.
    """
    rounds = _Rounds(answer, step)
    if step.output is None:
        _, response = await rounds.until_answered(request)
        return rounds.answered(response.text)
    opening = told(request, kind_of(step.output).schema, settings.instruction)
    turns, response = await rounds.until_answered(opening)
    # The client tells the schema itself where it asks again, so the conversation is without it.
    asking: Asking[Any] = Asking(
        evolve(request, messages=(*request.messages, *turns)), step.output, settings
    )
    while (made := asking.judge(response)) is None:
        response = await rounds.ask(asking.request)
    return rounds.answered(made.output)


class _Rounds:
    """The requests that one answer takes."""

    def __init__(self, answer: Answer, step: Step) -> None:
        self._answer, self._step = answer, step
        self._tools = {each.name: each for each in step.tools}
        self._usages: list[Usage | None] = []
        self._prices: list[Decimal | None] = []

    async def until_answered(
        self, request: LLMRequest
    ) -> tuple[tuple[LLMMessage, ...], LLMResponse]:
        """The turns between, and the answer that is no call."""
        step = self._step
        request = evolve(request, tools=tuple(each.spec for each in step.tools))
        first = len(request.messages)
        for _ in range(step.max_tool_rounds + 1):
            response = await self.ask(request)
            calls = response.tool_calls
            if not calls:
                return tuple(request.messages[first:]), response
            results = await asyncio.gather(*(self._result(call) for call in calls))
            request = evolve(request, messages=(*request.messages, _turn(response), *results))
        raise LLMOutputError(
            f"the model called tools in {step.max_tool_rounds + 1} answers one after the other, the "
            f"last time {calls[0].name!r}; allow more than max_tool_rounds={step.max_tool_rounds}, "
            "or say in the prompt when to answer",
            asks=len(self._usages),
        )

    async def ask(self, request: LLMRequest) -> LLMResponse:
        """One answer."""
        response = await self._answer(request)
        self._usages.append(response.usage if isinstance(response.usage, Usage) else None)
        self._prices.append(response.price_usd)
        return response

    def answered(self, value: Any) -> Answered:
        """``value`` with what it took."""
        usages = [each for each in self._usages if each is not None]
        prices = [each for each in self._prices if each is not None]
        whole = len(self._usages)
        return Answered(
            value,
            add_usages(usages) if len(usages) == whole else None,
            sum(prices, Decimal(0)) if len(prices) == whole else None,
        )

    async def _result(self, call: ToolCall) -> LLMMessage:
        tool: Tool | None = self._tools.get(call.name)
        failed = False
        try:
            if tool is None:
                known = ", ".join(self._tools)
                raise ToolFailed(f"there is no tool {call.name!r}; there are: {known}")
            said = await tool.call(call.arguments_json, self._step.tool_timeout_s)
        except ToolFailed as error:
            said, failed = str(error), True
        return LLMMessage(
            role="tool",
            content=said,
            tool_call_id=call.call_id,
            tool_name=call.name,
            tool_error=failed or None,
        )


def _turn(response: LLMResponse) -> LLMMessage:
    """``response`` as a turn of the conversation that goes on."""
    return LLMMessage(
        role="assistant",
        content=response.text,
        tool_calls=tuple(response.tool_calls),
        reasoning_parts=response.reasoning_parts,
    )
