"""What a step's request may cost, before it is asked."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from decimal import Decimal

from attrs import frozen

from headrace.backends.pricing import price_of, price_of_batch, told_price
from headrace.backends.providers import split_model
from headrace.chains.nodes import Step, schema_of
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMError, LLMInvalidRequestError
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import Usage
from headrace.traffic.lane import prompt_bound

# What a model is told beside its own wrong answer when it is asked again.
_OBJECTION_BYTES = 4096


@frozen
class Prices:
    """What engines cost, by their names in a chain."""

    engines: Mapping[str, EngineConfig]

    def of(
        self, name: str, prompt_tokens: int, completion_tokens: int, *, batch: bool = False
    ) -> Decimal | None:
        """US dollars for a call of so many tokens, or one in a ``batch``; None where nobody knows."""
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        engine = self.engines.get(name)
        if engine is not None:
            told = told_price(engine, usage)
            if told is not None:
                return told
            return _published(engine.backend, engine.model, usage, batch=batch)
        try:
            row, model = split_model(name)
        except LLMError:
            return None
        return _published(row.name, model, usage, batch=batch)

    def check(self, steps: Sequence[Step]) -> None:
        """Raises LLMInvalidRequestError where the cost of a step's request has no known bound."""
        for step in steps:
            if self.of(step.engine, 1, 1) is None:
                raise LLMInvalidRequestError(
                    f"max_cost is given, and the price of the engine {step.engine!r} of step "
                    f"{step.id!r} is not known; give input_price_usd and output_price_usd, US dollars "
                    "for a million tokens, in its entry of engines (0 for one that costs nothing)",
                    param="max_cost",
                )
            if step.tools:
                raise LLMInvalidRequestError(
                    f"max_cost is given, and nobody knows how much the tools of step {step.id!r} have "
                    "to tell; leave one of them out",
                    param="max_cost",
                )
            if step.sampling.max_tokens is None and self.of(step.engine, 0, 1):
                raise LLMInvalidRequestError(
                    f"max_cost is given, and an answer of step {step.id!r} may get as long as it "
                    "likes; give max_tokens in its sampling",
                    param="max_cost",
                )

    def in_batch(self, step: Step, request: LLMRequest) -> Decimal:
        """The most that one of its calls may cost in a batch, where each is made once."""
        prompt = prompt_bound(request)
        if step.output is not None:
            prompt += len(json.dumps(schema_of(step.output)))
        answer = (request.max_tokens or 0) * (request.n or 1)
        price = self.of(step.engine, prompt, answer, batch=True)
        assert price is not None  # as ``check`` has seen
        return price

    def most(self, step: Step, request: LLMRequest) -> tuple[Decimal, Decimal]:
        """The most that ``step`` may cost for one value, and that one of its calls may."""
        prompt = prompt_bound(request)
        if step.output is not None:
            prompt += len(json.dumps(schema_of(step.output))) + len(
                (step.instruction or "").encode()
            )
        answer = (request.max_tokens or 0) * (request.n or 1)
        calls = [self._known(step, prompt, answer)]
        for _ in range(1, step.asks if step.output is not None else 1):
            # It sees its last answer, and what is wrong with it.
            calls.append(self._known(step, prompt + answer + _OBJECTION_BYTES, answer))
        return sum(calls, Decimal(0)), max(calls)

    def _known(self, step: Step, prompt_tokens: int, completion_tokens: int) -> Decimal:
        price = self.of(step.engine, prompt_tokens, completion_tokens)
        assert price is not None  # as ``check`` has seen
        return price


def _published(provider: str, model: str, usage: Usage, *, batch: bool) -> Decimal | None:
    if batch:
        return price_of_batch(provider, (model,), usage, time.time())
    return price_of(provider, (model,), usage, time.time())
