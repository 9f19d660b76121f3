"""Asks a backend across HTTP by tensors or values, as its provider's row says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from attrs import evolve

from headrace.backends.row import Inference
from headrace.backends.segments import segment
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.inference import (
    InferRequest,
    InferResult,
    ModelMetadata,
    ModelStatistics,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMResponse
from headrace.wire.kserve import HEADER_LENGTH

if TYPE_CHECKING:
    from headrace.backends.remote import Remote

_VERSION = re.compile(r"/v\d+$")
_OPTIONAL = re.compile(r"\[(.*)\]")


def takes_tensors(backend: object) -> bool:
    """Whether ``backend`` can be asked by named tensors."""
    inference = _inference_of(backend)
    return inference is not None and inference.form != "values"


def of_root(base_url: str) -> str:
    """The server's root: its base without the version that stands at its end."""
    return _VERSION.sub("", base_url)


def place(template: str, model: str, version: str | None) -> str:
    """A path of a row's, with the model and its version in their places."""
    template = _OPTIONAL.sub("" if version is None else r"\1", template)
    return template.replace("{model}", segment(model)).replace(
        "{version}", segment(version or "", "version")
    )


async def infer(remote: Remote, request: InferRequest, marks: Marks) -> InferResult:
    """What the model answers; raises an LLMError."""
    inference, model = _required(remote), _model(remote, request.model)
    body, head = inference.codec.write_infer(request, binary=inference.binary)
    more = () if head is None else ((HEADER_LENGTH, str(head)),)
    path = place(inference.path, model, request.version)
    answer, headers = await remote.exchange(
        "POST", of_root(remote.base_url) + path, body, marks, request.metadata, more
    )
    result: InferResult = inference.codec.read_result(answer, headers.get(HEADER_LENGTH))
    return result if result.model_id is not None else evolve(result, model_id=model)


async def metadata(remote: Remote, model: str | None, version: str | None = None) -> ModelMetadata:
    """What a model takes and gives, as its server tells."""
    from headrace.backends.kserve_grpc import KServeGrpc

    if isinstance(remote, KServeGrpc):
        return await remote.metadata(model, version)
    inference = _required(remote)
    if inference.metadata_path is None:
        raise LLMCapabilityError(
            f"{remote.name} ({remote.provider.name}) does not tell what its models take"
        )
    path = place(inference.metadata_path, _model(remote, model), version)
    answer, _ = await remote.exchange("GET", of_root(remote.base_url) + path, b"", Marks(), {})
    found: ModelMetadata = inference.codec.read_metadata(answer)
    return found


async def complete(remote: Remote, request: LLMRequest, marks: Marks) -> LLMResponse:
    """The completion of ``request``, asked for by tensors or as a value."""
    from headrace.wire.kserve_text import completion_to_infer, result_to_response

    inference = _required(remote)
    if inference.form == "values":
        from headrace.wire.inference import completion_to_values, values_to_response

        return values_to_response(await infer(remote, completion_to_values(request), marks))
    assert inference.text_input is not None
    asked = completion_to_infer(
        request,
        text_input=inference.text_input,
        model=remote.model,
        dialect=remote.provider.dialect,
    )
    return result_to_response(await remote.infer(asked, marks), inference.text_output)


async def embed(remote: Remote, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
    """The vectors of ``request``, asked for by tensors."""
    from headrace.wire.kserve_text import embedding_to_infer, result_to_vectors

    inference = _required(remote)
    assert inference.embed_input is not None
    asked = embedding_to_infer(request, text_input=inference.embed_input, model=remote.model)
    result = await remote.infer(asked, marks)
    return result_to_vectors(result, inference.embed_output, len(request.inputs))


async def statistics(remote: Remote, model: str | None) -> ModelStatistics:
    """What a model did so far, as its server tells."""
    inference = _required(remote)
    if inference.statistics_path is None:
        raise LLMCapabilityError(f"{remote.name} ({remote.provider.name}) tells no statistics")
    path = place(inference.statistics_path, _model(remote, model), None)
    answer, _ = await remote.exchange("GET", of_root(remote.base_url) + path, b"", Marks(), {})
    found: ModelStatistics = inference.codec.read_statistics(answer)
    return found


def _inference_of(backend: object) -> Inference | None:
    from headrace.backends.remote import Remote

    return backend.provider.inference if isinstance(backend, Remote) else None


def _required(remote: Remote) -> Inference:
    inference = remote.provider.inference
    if inference is None:
        raise LLMCapabilityError(
            f"{remote.name} ({remote.provider.name}) is asked by no tensors or values; "
            "ask another backend",
            param="model",
        )
    return inference


def _model(remote: Remote, asked: str | None) -> str:
    model = remote.model or asked
    if not model:
        raise LLMInvalidRequestError(
            f"{remote.name} ({remote.provider.name}) needs a model: it stands in the address",
            param="model",
        )
    return model
