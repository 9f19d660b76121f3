"""An engine as a client is: asked at its pace, each request by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, overload

from attrs import frozen

from headrace.client.structured.asking import Asking
from headrace.client.structured.results import Structured
from headrace.client.structured.settings import OutputSettings
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse

if TYPE_CHECKING:
    from headrace.chains.pace.pace import Pace


@frozen
class Paced:
    """Asks for one step. An answer that will not do is asked for again by a request of its own, so
    that one which fails costs none of those before it."""

    pace: Pace
    step: str
    admitted: Callable[[], None] | None = None

    def telling(self, admitted: Callable[[], None]) -> Paced:
        """The same, which calls ``admitted`` each time that a request has its place."""
        return Paced(self.pace, self.step, admitted)

    @overload
    async def generate(self, request: LLMRequest) -> LLMResponse: ...

    @overload
    async def generate(
        self, request: LLMRequest, *, output: Any, output_settings: OutputSettings
    ) -> Structured[Any]: ...

    async def generate(
        self,
        request: LLMRequest,
        *,
        output: Any = None,
        output_settings: OutputSettings | None = None,
    ) -> LLMResponse | Structured[Any]:
        """As a client's ``generate``; raises EngineGoneError where the run is to end."""
        if output is None:
            return await self.pace.answer(self.step, request, self.admitted)
        asking: Asking[Any] = Asking(request, output, output_settings or OutputSettings())
        while True:
            made = asking.judge(await self.pace.answer(self.step, asking.request, self.admitted))
            if made is not None:
                return made
