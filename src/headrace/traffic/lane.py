"""A backend with its door: what a request costs there, and who may go in."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from attrs import frozen

from headrace.contracts.messages import TextPart
from headrace.contracts.protocols import Backend
from headrace.contracts.requests import LLMRequest
from headrace.traffic.admission import Admission

# What a chat template may put around one message or one tool, in tokens, with room to spare.
_FRAME_TOKENS = 32


@runtime_checkable
class CountsTokens(Protocol):
    """A backend that can count a prompt exactly, at the price of asking its engine."""

    async def count_tokens(self, request: LLMRequest) -> int: ...


@frozen(kw_only=True)
class Lane:
    """One backend behind one admission; remote ones count no tokens.

    ``one_answer_a_call`` marks a backend whose count of tokens is wrong when it gives several
    answers to one request (llama.cpp reports those of one): it is asked once for each.
    """

    backend: Backend
    admission: Admission
    one_answer_a_call: bool = False
    default_answer_tokens: int = 2048

    async def cost(self, request: LLMRequest) -> tuple[int, int]:
        """The tokens and places that ``request`` will hold.

        The prompt is bounded by its bytes (a token is at least one), and counted exactly only when
        the bound would make the request wait.
        """
        places = request.n or 1
        if self.admission.max_tokens is None:
            return 0, places
        answer = places * (request.max_tokens or self.default_answer_tokens)
        bound = prompt_bound(request) + answer
        if self.admission.fits(bound, places) or not isinstance(self.backend, CountsTokens):
            return bound, places
        return await self.backend.count_tokens(request) + answer, places


def prompt_bound(request: LLMRequest) -> int:
    """A number of tokens that the prompt surely does not pass; cheap to compute."""
    if request.prompt is not None:
        prompt = request.prompt
        return _FRAME_TOKENS + (len(prompt.encode()) if isinstance(prompt, str) else len(prompt))
    bound = _FRAME_TOKENS
    for message in request.messages:
        bound += _FRAME_TOKENS
        if isinstance(message.content, str):
            bound += len(message.content.encode())
        else:
            for part in message.content:
                bound += len(part.text.encode()) if isinstance(part, TextPart) else 1024
        for call in message.tool_calls:
            bound += _FRAME_TOKENS + len(call.arguments_json.encode()) + len(call.name)
    for tool in request.tools:
        bound += _FRAME_TOKENS + len(tool.description.encode()) + len(repr(tool.input_schema))
    return bound
