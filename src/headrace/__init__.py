"""headrace: carry requests to language models and gauge the flow.

The face that users import: every contract and error by its own name. Each is loaded by its first
use, so that ``import headrace`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.client.async_client import AsyncClient
    from headrace.client.structured.results import Structured, StructuredEvent
    from headrace.client.structured.settings import OutputSettings
    from headrace.client.sync_client import Client
    from headrace.contracts.capabilities import (
        BackendCapabilities,
        BackendStatus,
        JSONMode,
        ModelInfo,
        ToolCallingMode,
    )
    from headrace.contracts.errors import (
        LLMAuthError,
        LLMBadResponseError,
        LLMCancelledError,
        LLMCapabilityError,
        LLMContentFilterError,
        LLMContextLengthError,
        LLMError,
        LLMInsufficientFundsError,
        LLMInvalidRequestError,
        LLMModelNotFoundError,
        LLMOutputError,
        LLMOverloadedError,
        LLMProviderError,
        LLMRateLimitError,
        LLMTimeoutError,
        LLMUnavailableError,
        OutputProblem,
    )
    from headrace.contracts.messages import (
        AudioPart,
        CacheFor,
        ContentPart,
        FilePart,
        ImageDetail,
        ImagePart,
        LLMMessage,
        LLMRole,
        LLMToolResult,
        ReasoningPart,
        TextPart,
        ToolCall,
        ToolSpec,
    )
    from headrace.contracts.protocols import (
        Backend,
        Embedder,
        LLMClient,
        LLMProviderAdapter,
    )
    from headrace.contracts.record import (
        Attempt,
        CallRecord,
        Marks,
        Operation,
        RecordSink,
        StageMark,
        Timeline,
    )
    from headrace.contracts.requests import (
        EmbeddingRequest,
        LLMChatParams,
        LLMRequest,
        NamedTool,
        Priority,
        ReasoningEffort,
        ResponseMode,
        TaskPriority,
        TaskProfile,
        ToolChoice,
    )
    from headrace.contracts.responses import (
        EmbeddingResult,
        FinishReason,
        LLMChoice,
        LLMDelta,
        LLMResponse,
        LLMStreamEvent,
        LLMStreamEventKind,
        Provenance,
        TokenLogprob,
        ToolCallDelta,
        TopLogprob,
        Usage,
    )
    from headrace.contracts.snapshot import (
        CircuitState,
        EndpointStats,
        GroupSnapshot,
        LatencySummary,
        Outcome,
        Snapshot,
    )

    __version__: str

_HOMES = {
    "headrace.client.async_client": ("AsyncClient",),
    "headrace.client.structured.results": ("Structured", "StructuredEvent"),
    "headrace.client.structured.settings": ("OutputSettings",),
    "headrace.client.sync_client": ("Client",),
    "headrace.contracts.capabilities": (
        "BackendCapabilities",
        "BackendStatus",
        "JSONMode",
        "ModelInfo",
        "ToolCallingMode",
    ),
    "headrace.contracts.errors": (
        "LLMAuthError",
        "LLMBadResponseError",
        "LLMCancelledError",
        "LLMCapabilityError",
        "LLMContentFilterError",
        "LLMContextLengthError",
        "LLMError",
        "LLMInsufficientFundsError",
        "LLMInvalidRequestError",
        "LLMModelNotFoundError",
        "LLMOutputError",
        "LLMOverloadedError",
        "LLMProviderError",
        "LLMRateLimitError",
        "LLMTimeoutError",
        "LLMUnavailableError",
        "OutputProblem",
    ),
    "headrace.contracts.messages": (
        "AudioPart",
        "CacheFor",
        "ContentPart",
        "FilePart",
        "ImageDetail",
        "ImagePart",
        "LLMMessage",
        "LLMRole",
        "LLMToolResult",
        "ReasoningPart",
        "TextPart",
        "ToolCall",
        "ToolSpec",
    ),
    "headrace.contracts.protocols": (
        "Backend",
        "Embedder",
        "LLMClient",
        "LLMProviderAdapter",
    ),
    "headrace.contracts.record": (
        "Attempt",
        "CallRecord",
        "Marks",
        "Operation",
        "RecordSink",
        "StageMark",
        "Timeline",
    ),
    "headrace.contracts.requests": (
        "EmbeddingRequest",
        "LLMChatParams",
        "LLMRequest",
        "NamedTool",
        "Priority",
        "ReasoningEffort",
        "ResponseMode",
        "TaskPriority",
        "TaskProfile",
        "ToolChoice",
    ),
    "headrace.contracts.responses": (
        "EmbeddingResult",
        "FinishReason",
        "LLMChoice",
        "LLMDelta",
        "LLMResponse",
        "LLMStreamEvent",
        "LLMStreamEventKind",
        "Provenance",
        "TokenLogprob",
        "ToolCallDelta",
        "TopLogprob",
        "Usage",
    ),
    "headrace.contracts.snapshot": (
        "CircuitState",
        "EndpointStats",
        "GroupSnapshot",
        "LatencySummary",
        "Outcome",
        "Snapshot",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "Attempt",
    "AudioPart",
    "Backend",
    "BackendCapabilities",
    "BackendStatus",
    "CacheFor",
    "CallRecord",
    "CircuitState",
    "Client",
    "ContentPart",
    "Embedder",
    "EmbeddingRequest",
    "EmbeddingResult",
    "EndpointStats",
    "FilePart",
    "FinishReason",
    "GroupSnapshot",
    "ImageDetail",
    "ImagePart",
    "JSONMode",
    "LLMAuthError",
    "LLMBadResponseError",
    "LLMCancelledError",
    "LLMCapabilityError",
    "LLMChatParams",
    "LLMChoice",
    "LLMClient",
    "LLMContentFilterError",
    "LLMContextLengthError",
    "LLMDelta",
    "LLMError",
    "LLMInsufficientFundsError",
    "LLMInvalidRequestError",
    "LLMMessage",
    "LLMModelNotFoundError",
    "LLMOutputError",
    "LLMOverloadedError",
    "LLMProviderAdapter",
    "LLMProviderError",
    "LLMRateLimitError",
    "LLMRequest",
    "LLMResponse",
    "LLMRole",
    "LLMStreamEvent",
    "LLMStreamEventKind",
    "LLMTimeoutError",
    "LLMToolResult",
    "LLMUnavailableError",
    "LatencySummary",
    "Marks",
    "ModelInfo",
    "NamedTool",
    "Operation",
    "Outcome",
    "OutputProblem",
    "OutputSettings",
    "Priority",
    "Provenance",
    "ReasoningEffort",
    "ReasoningPart",
    "RecordSink",
    "ResponseMode",
    "Snapshot",
    "StageMark",
    "Structured",
    "StructuredEvent",
    "TaskPriority",
    "TaskProfile",
    "TextPart",
    "Timeline",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallingMode",
    "ToolChoice",
    "ToolSpec",
    "TopLogprob",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> object:
    found: object
    if name == "__version__":
        # Reading the installed metadata takes longer than all the rest together.
        from importlib.metadata import version

        found = version("headrace")
    elif name in _HOME_OF:
        found = getattr(import_module(_HOME_OF[name]), name)
    else:
        raise AttributeError(f"module 'headrace' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
