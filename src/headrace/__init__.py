"""headrace: carry requests to language models and gauge the flow.

The face that users import: the clients and all that they are set up with, every contract and error,
each by its own name. Each is loaded by its first use, so that ``import headrace`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.backends.providers import (
        read_providers,
        register_provider,
    )
    from headrace.backends.row import (
        Inference,
        Provider,
    )
    from headrace.client.async_client import (
        AsyncClient,
    )
    from headrace.client.batches import (
        BatchAnswer,
        Batches,
        SyncBatches,
    )
    from headrace.client.choosing import (
        ClientPolicy,
    )
    from headrace.client.endpoint_config import EndpointConfig
    from headrace.client.engine import (
        AsyncEngine,
        Engine,
        generate,
    )
    from headrace.client.handlers import (
        EndpointHandlers,
        Handler,
        endpoint_handler,
        register_endpoint,
        unregister_endpoint,
    )
    from headrace.client.registry import (
        get_engine_config,
        load_engines,
        register_engine,
        unregister_engine,
    )
    from headrace.client.settings import (
        Settings,
    )
    from headrace.client.structured.results import (
        Structured,
        StructuredEvent,
    )
    from headrace.client.structured.settings import (
        OutputSettings,
    )
    from headrace.client.sync_client import (
        Client,
    )
    from headrace.contracts.audio import (
        Granularity,
        SpeechFormat,
        SpeechRequest,
        SpeechResult,
        TranscribedSegment,
        TranscribedWord,
        TranscriptionDelta,
        TranscriptionRequest,
        TranscriptionResult,
    )
    from headrace.contracts.capabilities import (
        BackendCapabilities,
        BackendStatus,
        JSONMode,
        ModelInfo,
        Serves,
        ToolCallingMode,
    )
    from headrace.contracts.engine_metrics import EngineMetrics
    from headrace.contracts.engines import (
        EngineConfig,
        ServerSnapshot,
        ServerState,
    )
    from headrace.contracts.errors import (
        LLMAuthError,
        LLMBadResponseError,
        LLMCancelledError,
        LLMCapabilityError,
        LLMContentFilterError,
        LLMContextLengthError,
        LLMEndpointNotFoundError,
        LLMEngineNotFoundError,
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
    from headrace.contracts.inference import (
        Datatype,
        InferProblem,
        InferRequest,
        InferResult,
        ModelMetadata,
        ModelStatistics,
        Tensor,
        TensorInfo,
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
        Classifier,
        Embedder,
        Infers,
        LLMClient,
        LLMProviderAdapter,
        Relays,
        Reranker,
        Transcriber,
    )
    from headrace.contracts.ranking import (
        ClassificationRequest,
        ClassificationResult,
        LabelScore,
        RankedDocument,
        RerankRequest,
        RerankResult,
    )
    from headrace.contracts.record import (
        Attempt,
        CallRecord,
        Hedge,
        HedgeOutcome,
        Marks,
        Operation,
        RecordSink,
        StageMark,
        Timeline,
    )
    from headrace.contracts.relay import (
        RelayHead,
        RelayRequest,
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
    from headrace.contracts.routing import (
        RouteCandidate,
        RouteDecision,
    )
    from headrace.contracts.snapshot import (
        CircuitState,
        EndpointStats,
        EngineSnapshot,
        GroupSnapshot,
        HistorySnapshot,
        IntervalSnapshot,
        KeyStats,
        LaneSnapshot,
        LatencySummary,
        Outcome,
        RecentCall,
        Snapshot,
        WorkerSnapshot,
    )
    from headrace.gateway.functions.app import (
        inference_app,
    )
    from headrace.gateway.functions.function import (
        Function,
    )
    from headrace.net.transport import (
        TimeLimits,
    )
    from headrace.stores.credentials import (
        Credentials,
    )
    from headrace.stores.secret import (
        Secret,
    )
    from headrace.traffic.breaker import (
        BreakerPolicy,
    )
    from headrace.traffic.endpoint import (
        EndpointSettings,
    )
    from headrace.traffic.hedge import (
        HedgePolicy,
    )
    from headrace.traffic.otel import (
        OpenTelemetrySink,
    )
    from headrace.traffic.retry import (
        RetryPolicy,
    )
    from headrace.traffic.sinks import (
        JsonlFile,
        log_records,
    )
    from headrace.wire.tensors import (
        tensor_of,
    )

    __version__: str

_HOMES = {
    "headrace.backends.providers": (
        "read_providers",
        "register_provider",
    ),
    "headrace.backends.row": ("Inference", "Provider"),
    "headrace.client.async_client": ("AsyncClient",),
    "headrace.client.batches": ("BatchAnswer", "Batches", "SyncBatches"),
    "headrace.client.choosing": ("ClientPolicy",),
    "headrace.client.endpoint_config": ("EndpointConfig",),
    "headrace.client.engine": ("AsyncEngine", "Engine", "generate"),
    "headrace.client.handlers": (
        "EndpointHandlers",
        "Handler",
        "endpoint_handler",
        "register_endpoint",
        "unregister_endpoint",
    ),
    "headrace.client.registry": (
        "get_engine_config",
        "load_engines",
        "register_engine",
        "unregister_engine",
    ),
    "headrace.client.settings": ("Settings",),
    "headrace.client.structured.results": ("Structured", "StructuredEvent"),
    "headrace.client.structured.settings": ("OutputSettings",),
    "headrace.client.sync_client": ("Client",),
    "headrace.contracts.audio": (
        "Granularity",
        "SpeechFormat",
        "SpeechRequest",
        "SpeechResult",
        "TranscribedSegment",
        "TranscribedWord",
        "TranscriptionDelta",
        "TranscriptionRequest",
        "TranscriptionResult",
    ),
    "headrace.contracts.capabilities": (
        "BackendCapabilities",
        "BackendStatus",
        "JSONMode",
        "ModelInfo",
        "Serves",
        "ToolCallingMode",
    ),
    "headrace.contracts.engine_metrics": ("EngineMetrics",),
    "headrace.contracts.engines": ("EngineConfig", "ServerSnapshot", "ServerState"),
    "headrace.contracts.errors": (
        "LLMAuthError",
        "LLMBadResponseError",
        "LLMCancelledError",
        "LLMCapabilityError",
        "LLMContentFilterError",
        "LLMContextLengthError",
        "LLMEndpointNotFoundError",
        "LLMEngineNotFoundError",
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
    "headrace.contracts.inference": (
        "Datatype",
        "InferProblem",
        "InferRequest",
        "InferResult",
        "ModelMetadata",
        "ModelStatistics",
        "Tensor",
        "TensorInfo",
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
        "Classifier",
        "Embedder",
        "Infers",
        "LLMClient",
        "LLMProviderAdapter",
        "Relays",
        "Reranker",
        "Transcriber",
    ),
    "headrace.contracts.ranking": (
        "ClassificationRequest",
        "ClassificationResult",
        "LabelScore",
        "RankedDocument",
        "RerankRequest",
        "RerankResult",
    ),
    "headrace.contracts.record": (
        "Attempt",
        "CallRecord",
        "Hedge",
        "HedgeOutcome",
        "Marks",
        "Operation",
        "RecordSink",
        "StageMark",
        "Timeline",
    ),
    "headrace.contracts.relay": ("RelayHead", "RelayRequest"),
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
    "headrace.contracts.routing": (
        "RouteCandidate",
        "RouteDecision",
    ),
    "headrace.contracts.snapshot": (
        "CircuitState",
        "EndpointStats",
        "EngineSnapshot",
        "GroupSnapshot",
        "HistorySnapshot",
        "IntervalSnapshot",
        "KeyStats",
        "LaneSnapshot",
        "LatencySummary",
        "Outcome",
        "RecentCall",
        "Snapshot",
        "WorkerSnapshot",
    ),
    "headrace.gateway.functions.app": ("inference_app",),
    "headrace.gateway.functions.function": ("Function",),
    "headrace.net.transport": ("TimeLimits",),
    "headrace.stores.credentials": ("Credentials",),
    "headrace.stores.secret": ("Secret",),
    "headrace.traffic.breaker": ("BreakerPolicy",),
    "headrace.traffic.endpoint": ("EndpointSettings",),
    "headrace.traffic.hedge": ("HedgePolicy",),
    "headrace.traffic.otel": ("OpenTelemetrySink",),
    "headrace.traffic.retry": ("RetryPolicy",),
    "headrace.traffic.sinks": (
        "JsonlFile",
        "log_records",
    ),
    "headrace.wire.tensors": ("tensor_of",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AsyncClient",
    "AsyncEngine",
    "Attempt",
    "AudioPart",
    "Backend",
    "BackendCapabilities",
    "BackendStatus",
    "BatchAnswer",
    "Batches",
    "BreakerPolicy",
    "CacheFor",
    "CallRecord",
    "CircuitState",
    "ClassificationRequest",
    "ClassificationResult",
    "Classifier",
    "Client",
    "ClientPolicy",
    "ContentPart",
    "Credentials",
    "Datatype",
    "Embedder",
    "EmbeddingRequest",
    "EmbeddingResult",
    "EndpointConfig",
    "EndpointHandlers",
    "EndpointSettings",
    "EndpointStats",
    "Engine",
    "EngineConfig",
    "EngineMetrics",
    "EngineSnapshot",
    "FilePart",
    "FinishReason",
    "Function",
    "Granularity",
    "GroupSnapshot",
    "Handler",
    "Hedge",
    "HedgeOutcome",
    "HedgePolicy",
    "HistorySnapshot",
    "ImageDetail",
    "ImagePart",
    "InferProblem",
    "InferRequest",
    "InferResult",
    "Inference",
    "Infers",
    "IntervalSnapshot",
    "JSONMode",
    "JsonlFile",
    "KeyStats",
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
    "LLMEndpointNotFoundError",
    "LLMEngineNotFoundError",
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
    "LabelScore",
    "LaneSnapshot",
    "LatencySummary",
    "Marks",
    "ModelInfo",
    "ModelMetadata",
    "ModelStatistics",
    "NamedTool",
    "OpenTelemetrySink",
    "Operation",
    "Outcome",
    "OutputProblem",
    "OutputSettings",
    "Priority",
    "Provenance",
    "Provider",
    "RankedDocument",
    "ReasoningEffort",
    "ReasoningPart",
    "RecentCall",
    "RecordSink",
    "RelayHead",
    "RelayRequest",
    "Relays",
    "RerankRequest",
    "RerankResult",
    "Reranker",
    "ResponseMode",
    "RetryPolicy",
    "RouteCandidate",
    "RouteDecision",
    "Secret",
    "ServerSnapshot",
    "ServerState",
    "Serves",
    "Settings",
    "Snapshot",
    "SpeechFormat",
    "SpeechRequest",
    "SpeechResult",
    "StageMark",
    "Structured",
    "StructuredEvent",
    "SyncBatches",
    "TaskPriority",
    "TaskProfile",
    "Tensor",
    "TensorInfo",
    "TextPart",
    "TimeLimits",
    "Timeline",
    "TokenLogprob",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallingMode",
    "ToolChoice",
    "ToolSpec",
    "TopLogprob",
    "TranscribedSegment",
    "TranscribedWord",
    "Transcriber",
    "TranscriptionDelta",
    "TranscriptionRequest",
    "TranscriptionResult",
    "Usage",
    "WorkerSnapshot",
    "__version__",
    "endpoint_handler",
    "generate",
    "get_engine_config",
    "inference_app",
    "load_engines",
    "log_records",
    "read_providers",
    "register_endpoint",
    "register_engine",
    "register_provider",
    "tensor_of",
    "unregister_endpoint",
    "unregister_engine",
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
