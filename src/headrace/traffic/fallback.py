"""Where else a call may go, and which errors are worth going there for."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, evolve, frozen

from headrace.contracts.errors import (
    LLMAuthError,
    LLMCapabilityError,
    LLMContextLengthError,
    LLMError,
    LLMModelNotFoundError,
    LLMProviderError,
)
from headrace.contracts.record import Attempt
from headrace.contracts.requests import LLMRequest
from headrace.traffic.lane import Lane

# Beside all that is transient. Key and credit are the provider's own; a model's window, abilities
# and presence too. A filter's refusal is none of them: to take the prompt elsewhere would be to get
# round it. A plainly wrong request is wrong everywhere.
_THIS_BACKEND_ONLY = (
    LLMAuthError,
    LLMProviderError,
    LLMCapabilityError,
    LLMModelNotFoundError,
    LLMContextLengthError,
)


@frozen(kw_only=True)
class Alternative:
    """Another lane to ask, and the model's name there, where it has another one.

    ``request`` takes the place of the call's own where that lane is asked otherwise, and
    ``dropped`` are the settings that it then goes without.
    """

    lane: Lane
    model: str | None = None
    request: LLMRequest | None = None
    dropped: tuple[str, ...] = ()

    def asked(self, request: LLMRequest) -> LLMRequest:
        """What this lane is asked in a call for ``request``."""
        own = request if self.request is None else self.request
        return own if self.model is None else evolve(own, model=self.model)


@define(kw_only=True, eq=False)
class Earlier:
    """A first attempt that failed, for ``Traffic.run`` to go on from; it then sets ``taken``."""

    error: LLMError
    attempt: Attempt
    call_id: str
    queued: float
    admitted: float
    dropped: tuple[str, ...] = ()
    taken: bool = False


def without_key(metadata: Mapping[str, object]) -> dict[str, object]:
    """``metadata`` for a backend that a call's own key is not meant for."""
    return {name: value for name, value in metadata.items() if name != "api_key"}


def another_may_mend(error: LLMError) -> bool:
    """Whether another backend might answer where this one failed with ``error``."""
    return error.transient or isinstance(error, _THIS_BACKEND_ONLY)
