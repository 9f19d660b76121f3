"""How a language model is asked by tensors: the usual names, those of Triton's vLLM backend.

``text_input`` is the prompt and ``text_output`` what follows it, each an element of BYTES; settings
are parameters of the request, or tensors of one element. The names are those of
https://github.com/triton-inference-server/vllm_backend and of TensorRT-LLM's backend, where they
differ in both ways. An embedding model takes BYTES ``text`` and gives FP32 ``embedding``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.contracts.inference import (
    InferRequest,
    InferResult,
    ModelMetadata,
    Tensor,
    TensorInfo,
)
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMResponse, Usage
from headrace.wire.assemble import choices_of
from headrace.wire.inbound import Inbound
from headrace.wire.json import decode_object, encode
from headrace.wire.openai_answers import finish_reason_from_wire
from headrace.wire.openai_fields import Check, boolean, integer, number, refuse, refuse_type, text
from headrace.wire.openai_params import SHARED, Dialect, write_settings

TEXT_INPUT, TEXT_OUTPUT = "text_input", "text_output"
TEXT, EMBEDDING = "text", "embedding"
VERSION = "1"
"""The one version that a model of ours has."""

_REASON, _IN, _OUT = "finish_reason", "num_input_tokens", "num_output_tokens"
TEXT_OUTPUTS = (TEXT_OUTPUT, _REASON, _IN, _OUT)
_MOST_TEXTS = 1024


def _stop(value: Any, path: str) -> tuple[str, ...]:
    if type(value) is str:
        return (value,) if value else ()
    if type(value) is not list:
        refuse_type(path, value, "a string or an array of strings")
    return tuple(text(each, f"{path}[{i}]") for i, each in enumerate(value) if each != "")


SETTINGS: Mapping[str, tuple[str, Check]] = {
    **{
        name: SHARED[name]
        for name in (
            *("max_tokens", "temperature", "top_p", "top_k", "min_p", "seed"),
            *("frequency_penalty", "presence_penalty", "repetition_penalty"),
        )
    },
    "random_seed": SHARED["seed"],
    "stop": ("stop", _stop),
    "stop_words": ("stop", _stop),
    "stream": ("stream", boolean),
    "exclude_input_in_output": ("exclude_input", boolean),
    # These are told anyway, where they are known.
    "return_finish_reason": ("told", boolean),
    "return_num_input_tokens": ("told", boolean),
    "return_num_output_tokens": ("told", boolean),
    # Triton's own, in milliseconds of what it takes to be one's turn; we have limits of our own.
    "priority": ("dropped_priority", integer(0, 2**63 - 1)),
    "timeout": ("dropped_timeout", number(0, 2**63)),
}
"""Wire name to our name and the check, for every parameter that has a meaning here."""

_SAMPLING = "sampling_parameters"


def read_settings(
    wire: Mapping[str, Any], path: str = "parameters"
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """``wire`` in our names; the parameters that we do not know, as they came; and the names of those
    that are known and do nothing.

    ``sampling_parameters`` is a JSON object of further ones, as text.
    """
    settings: dict[str, Any] = {}
    options: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in wire.items():
        where = f"{path}.{name}" if path else name
        if name == _SAMPLING:
            inner = _sampling(text(value, where), where)
            more = read_settings(inner, where)
            settings |= more[0]
            options |= more[1]
            dropped += more[2]
            continue
        row = SETTINGS.get(name)
        if row is None:
            options[name] = value
        elif value is not None:
            ours, check = row
            checked = check(value, where)
            if ours.startswith("dropped_"):
                dropped.append(name)
            elif ours != "told":
                settings[ours] = checked
    return settings, options, tuple(dropped)


def settings_to_wire(request: LLMRequest, dialect: Dialect) -> dict[str, object]:
    """The settings of ``request`` under their usual names."""
    body = write_settings(request, None, dialect)
    for name in ("model", "n", "user", "logit_bias"):
        body.pop(name, None)
    stop = body.pop("stop", None)
    if stop:
        body[dialect.stop] = list(request.stop)
    if stop and dialect.stop == "stop":
        # A parameter is no list; more than one string goes as the backend's own JSON.
        if len(request.stop) == 1:
            body["stop"] = request.stop[0]
        else:
            body = {_SAMPLING: encode(body).decode()}
    return body


def prompts_of(request: InferRequest) -> Inbound:
    """The completions that ``request``, which came as tensors, asks for."""
    prompts: tuple[str, ...] = ()
    given: dict[str, Any] = dict(request.parameters)
    for i, each in enumerate(request.inputs):
        if each.name == TEXT_INPUT:
            prompts = _texts(each, i)
        elif len(each.data) == 1 or each.datatype == "BYTES":
            given[each.name] = _setting(each, i)
        else:
            refuse(f"inputs[{i}].shape", list(each.shape), "one element: it is a setting")
    if not prompts:
        raise _absent(TEXT_INPUT, request)
    settings, options, dropped = read_settings(given)
    if settings.pop("stream", False):
        raise LLMInvalidRequestError(
            "'stream' is true, but /infer answers once; ask /generate_stream", param="stream"
        )
    exclude = settings.pop("exclude_input", True)
    asked = LLMRequest(
        messages=(),
        prompt=prompts[0],
        model=request.model,
        echo=None if exclude else True,
        provider_options=options,
        **settings,
    )
    return Inbound(request=asked, include_usage=True, prompts=prompts, dropped=dropped)


def response_to_result(
    response: LLMResponse, shape: tuple[int, ...], *, model: str, version: str | None = VERSION
) -> InferResult:
    """``response`` as tensors; the texts lie in ``shape``, as the prompts did."""
    choices = choices_of(response)
    outputs = [
        _bytes_of(TEXT_OUTPUT, shape, [choice.text for choice in choices]),
        _bytes_of(_REASON, shape, [choice.finish_reason or "" for choice in choices]),
    ]
    usage = response.usage if isinstance(response.usage, Usage) else Usage()
    for name, count in ((_IN, usage.prompt_tokens), (_OUT, usage.completion_tokens)):
        if count is not None:
            outputs.append(Tensor(name=name, datatype="UINT32", shape=(1,), data=[count]))
    return InferResult(outputs=tuple(outputs), model_id=model, version=version)


def completion_to_infer(
    request: LLMRequest, *, text_input: str, model: str | None, dialect: Dialect
) -> InferRequest:
    """A text completion as a request by tensors."""
    if not isinstance(request.prompt, str):
        raise LLMInvalidRequestError(
            "the backend takes a text, and no token ids: send the prompt as text", param="prompt"
        )
    prompt = _bytes_of(text_input, (1,), [request.prompt])
    return InferRequest(
        inputs=(prompt,),
        model=model or request.model,
        parameters=settings_to_wire(request, dialect) | request.provider_options,
        metadata=request.metadata,
        request_id=request.request_id,
    )


def result_to_response(result: InferResult, text_output: str) -> LLMResponse:
    """The completion in the tensors of ``result``."""
    named = {each.name: each for each in result.outputs if isinstance(each, Tensor)}
    said = named.get(text_output)
    if said is None or said.datatype != "BYTES" or not said.data:
        raise LLMBadResponseError(
            f"The backend's answer has no text in a tensor {text_output!r}; it has: "
            f"{', '.join(named) or 'none'}."
        )
    reason = named.get(_REASON)
    told = None if reason is None or not reason.data else reason.data[0].decode("utf-8", "replace")
    return LLMResponse(
        text=said.data[0].decode("utf-8", "replace"),
        model=result.model_id,
        finish_reason=finish_reason_of(told),
        raw_finish_reason=told,
        usage=usage_of(_count(named.get(_IN)), _count(named.get(_OUT))),
        response_id=result.request_id,
    )


def finish_reason_of(told: str | None) -> str:
    """The normal word for a server's reason; many tell none."""
    return (finish_reason_from_wire(told) if told and told != "None" else None) or "other"


def usage_of(tokens_in: int | None, tokens_out: int | None) -> Usage | None:
    """The counts that were told."""
    if tokens_in is None and tokens_out is None:
        return None
    total = None if tokens_in is None or tokens_out is None else tokens_in + tokens_out
    return Usage(prompt_tokens=tokens_in, completion_tokens=tokens_out, total_tokens=total)


def embedding_of(request: InferRequest) -> EmbeddingRequest:
    """The request for vectors that ``request``, which came as tensors, is."""
    texts: tuple[str, ...] = ()
    for i, each in enumerate(request.inputs):
        if each.name != TEXT:
            refuse(f"inputs[{i}].name", each.name, f"'{TEXT}'")
        texts = _texts(each, i)
    if not texts:
        raise _absent(TEXT, request)
    if "" in texts:
        refuse("inputs[0].data", "", "texts that are not empty")
    return EmbeddingRequest(
        inputs=texts, model=request.model, provider_options=dict(request.parameters)
    )


def vectors_to_result(result: EmbeddingResult, *, model: str) -> InferResult:
    """``result`` as one tensor, a row for each text."""
    rows = [list(vector) for vector in result.vectors]
    shape = (len(rows), len(rows[0]) if rows else 0)
    data = [each for row in rows for each in row]
    tensor = Tensor(name=EMBEDDING, datatype="FP32", shape=shape, data=data)
    return InferResult(outputs=(tensor,), model_id=model, version=VERSION)


def embedding_to_infer(
    request: EmbeddingRequest, *, text_input: str, model: str | None
) -> InferRequest:
    """A request for vectors as one by tensors."""
    texts = []
    for place, each in enumerate(request.inputs):
        if not isinstance(each, str):
            raise LLMInvalidRequestError(
                "the backend takes texts, and no token ids", param=f"input[{place}]"
            )
        texts.append(each)
    return InferRequest(
        inputs=(_bytes_of(text_input, (len(texts),), texts),),
        model=model or request.model,
        parameters=dict(request.provider_options),
        metadata=request.metadata,
        request_id=request.request_id,
    )


def result_to_vectors(result: InferResult, output: str, count: int) -> EmbeddingResult:
    """The vectors in the tensor ``output``: one for each of ``count`` texts, the last axis its own."""
    found = next((t for t in result.outputs if isinstance(t, Tensor) and t.name == output), None)
    if found is None or found.datatype in ("BYTES", "BOOL"):
        names = ", ".join(each.name for each in result.outputs) or "none"
        raise LLMBadResponseError(
            f"The backend's answer has no numbers in a tensor {output!r}; it has: {names}."
        )
    width = found.shape[-1] if found.shape else 0
    if not width or len(found.data) != count * width:
        raise LLMBadResponseError(
            f"The backend's tensor {output!r} has the shape {list(found.shape)}, which is not one "
            f"vector for each of {count} texts."
        )
    vectors = [found.data[at : at + width] for at in range(0, len(found.data), width)]
    return EmbeddingResult(vectors=vectors, model_id=result.model_id)


def text_model(name: str) -> ModelMetadata:
    """What a language model of ours takes and gives."""
    return ModelMetadata(
        name=name,
        platform="headrace",
        versions=(VERSION,),
        inputs=(_info(TEXT_INPUT, "BYTES"),),
        outputs=(
            _info(TEXT_OUTPUT, "BYTES"),
            _info(_REASON, "BYTES"),
            TensorInfo(name=_IN, datatype="UINT32", shape=(1,)),
            TensorInfo(name=_OUT, datatype="UINT32", shape=(1,)),
        ),
    )


def embedding_model(name: str) -> ModelMetadata:
    """What an embedding model of ours takes and gives."""
    return ModelMetadata(
        name=name,
        platform="headrace",
        versions=(VERSION,),
        inputs=(_info(TEXT, "BYTES"),),
        outputs=(TensorInfo(name=EMBEDDING, datatype="FP32", shape=(-1, -1)),),
    )


def _info(name: str, datatype: str) -> TensorInfo:
    return TensorInfo(name=name, datatype=datatype, shape=(-1,))


def _absent(name: str, request: InferRequest) -> LLMInvalidRequestError:
    there = ", ".join(repr(each.name) for each in request.inputs)
    return LLMInvalidRequestError(
        f"Missing required input: a BYTES tensor {name!r}. There are: {there}.", param="inputs"
    )


def _texts(tensor: Tensor, place: int) -> tuple[str, ...]:
    path = f"inputs[{place}]"
    if tensor.datatype != "BYTES":
        refuse(f"{path}.datatype", tensor.datatype, "'BYTES'")
    if not 1 <= len(tensor.data) <= _MOST_TEXTS:
        refuse(f"{path}.shape", list(tensor.shape), f"1 to {_MOST_TEXTS} texts")
    return tuple(_decoded(each, f"{path}.data[{i}]") for i, each in enumerate(tensor.data))


def _setting(tensor: Tensor, place: int) -> object:
    """The value of a setting that came as a tensor."""
    if tensor.datatype != "BYTES":
        value = tensor.data[0]
        # A 32-bit 0.7 is 0.699999988; what was meant has fewer digits.
        return (
            float(f"{value:.7g}") if type(value) is float and tensor.datatype != "FP64" else value
        )
    path = f"inputs[{place}].data"
    texts = [_decoded(each, f"{path}[{i}]") for i, each in enumerate(tensor.data)]
    return texts[0] if len(texts) == 1 else texts


def _decoded(element: bytes, path: str) -> str:
    try:
        return element.decode()
    except UnicodeDecodeError as error:
        raise LLMInvalidRequestError(
            f"Invalid value for '{path}': byte {error.start} is not UTF-8.", param=path
        ) from error


def _sampling(value: str, path: str) -> dict[str, Any]:
    try:
        return decode_object(value.encode("utf-8", "replace"))
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"'{path}' is no JSON object: {error}", param=path) from error


def _bytes_of(name: str, shape: tuple[int, ...], texts: Sequence[str]) -> Tensor:
    return Tensor(name=name, datatype="BYTES", shape=shape, data=[each.encode() for each in texts])


def _count(tensor: Tensor | None) -> int | None:
    return None if tensor is None or not tensor.data else int(tensor.data[0])
