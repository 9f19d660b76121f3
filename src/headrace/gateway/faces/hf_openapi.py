"""The part of the OpenAPI document that tells of TGI's and TEI's paths, and of rankings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from headrace.wire import hf_tokens, rerank, tei, tei_predict, tei_rerank, tgi
from headrace.wire.openai_fields import Check, schema_of

_Json: TypeAlias = dict[str, Any]

_TEXT: _Json = {"type": "string"}
_NUMBER: _Json = {"type": "number"}
_COUNT: _Json = {"type": "integer", "minimum": 0}
_TEXT_OR_NULL: _Json = {"type": ["string", "null"]}
_REFUSALS = {
    401: "The key is missing or wrong.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    422: "The request is wrong; the message names the field.",
    424: "The backend failed.",
    429: "The server is full; Retry-After says when to come back.",
    500: "An unexpected failure; the log has it under the request id.",
    502: "The backend failed.",
    503: "The backend cannot be reached.",
    504: "The backend did not answer in time.",
}


def tgi_paths() -> _Json:
    """TGI's."""
    whole = _post("Continue a text, in TGI's form", "TgiRequest", "TgiResponse")
    stream = _post(
        "Continue a text token by token, in TGI's form", "TgiRequest", None, "text/event-stream"
    )
    either = _post(
        "What Hugging Face's client asks: continue a text (in an array, or as a stream where asked), "
        "make vectors, compare sentences or rank texts, as the body says",
        "HfRequest",
        "HfResponse",
    )
    told = {
        "summary": "Describe a model, the default one or the query's, in TGI's and TEI's words",
        "parameters": [{"name": "model", "in": "query", "schema": _TEXT}],
        "responses": {
            "200": _answer("The description.", _ref("HfInfo")),
            **{str(s): _answer(_REFUSALS[s], _ref("HfError")) for s in (401, 404)},
        },
    }
    return {
        "/": either,
        "/generate": whole,
        "/generate_stream": stream,
        "/info": {"get": told},
    }


def tei_paths() -> _Json:
    """TEI's."""
    return {
        "/embed": _post("Turn texts into vectors, in TEI's form", "TeiRequest", "TeiVectors"),
        "/similarity": _post(
            "Tell how alike sentences are, in TEI's form", "TeiSimilarityRequest", "TeiScores"
        ),
        "/predict": _post(
            "Put texts in classes, in TEI's form", "TeiPredictRequest", "TeiPredictResponse"
        ),
        "/rerank": _post(
            "Put documents in order for a query, in TEI's form, or in Jina's where they come as "
            "'documents'",
            "AnyRerankRequest",
            "AnyRerankResponse",
        ),
        "/tokenize": _post(
            "Tell the tokens of texts: of one as TGI does, of several as TEI does",
            "TokenizeRequest",
            "TokenizeResponse",
            able=501,
        ),
        "/decode": _post(
            "Tell the texts of tokens, in TEI's form", "DecodeRequest", "DecodeResponse", able=501
        ),
    }


def ranking_paths() -> _Json:
    """Cohere's and Jina's."""
    return {
        f"/v{version}/rerank": _post(
            f"Put documents in order for a query, in {whose} form",
            "RerankRequest",
            "RerankResponse",
            error="RerankError",
            bad=400,
        )
        for version, whose in (("1", "Jina's and Cohere's first"), ("2", "Cohere's second"))
    }


def schemas() -> _Json:
    """Its schemas."""
    token = _object(
        ("id", "text", "logprob", "special"),
        id=_COUNT,
        text=_TEXT,
        logprob={"type": ["number", "null"]},
        special={"type": "boolean"},
    )
    simple = _object(
        ("id", "text"),
        id=_COUNT,
        text=_TEXT,
        start=_COUNT,
        stop=_COUNT,
        special={"type": "boolean"},
    )
    details = _object(
        ("finish_reason", "generated_tokens", "prefill", "tokens"),
        finish_reason={"enum": ["length", "eos_token", "stop_sequence"]},
        generated_tokens=_COUNT,
        input_length=_COUNT,
        seed={"type": ["integer", "null"]},
        prefill=_array(token),
        tokens=_array(token),
        top_tokens=_array(_array(token)),
    )
    ranked = _object(
        ("index", "relevance_score"),
        index=_COUNT,
        relevance_score=_NUMBER,
        document=_object(("text",), text=_TEXT),
    )
    prediction = _object(("score", "label"), score=_NUMBER, label=_TEXT)
    rank = _object(("index", "score"), index=_COUNT, score=_NUMBER, text=_TEXT)
    parameters = _request(tgi.ROWS)
    sentences = _object(
        ("source_sentence", "sentences"),
        source_sentence=_TEXT,
        sentences={**_array(_TEXT), "minItems": 1},
    )
    options = {name: _or_null(schema_of(tei.ROWS[name][1])) for name in tei.OPTIONS[1:]}
    return {
        "TgiRequest": _object(
            ("inputs",),
            inputs={"type": "string", "minLength": 1},
            parameters=_or_null(parameters),
            model=_TEXT_OR_NULL,
            stream={"type": ["boolean", "null"]},
        ),
        "TgiResponse": _object(
            ("generated_text",), generated_text=_TEXT, details=_or_null(details)
        ),
        "HfRequest": {
            "anyOf": [
                _ref(name)
                for name in (
                    *("TgiRequest", "TeiRequest", "TeiSimilarityRequest", "TeiRerankRequest"),
                )
            ]
        },
        "HfResponse": {
            "anyOf": [
                _array(_ref("TgiResponse")),
                *(_ref(name) for name in ("TeiVectors", "TeiScores", "TeiRerankResponse")),
            ]
        },
        "HfInfo": _object(("model_id", "version"), model_id=_TEXT, version=_TEXT),
        "HfError": _object(("error", "error_type"), error=_TEXT, error_type=_TEXT),
        "TeiRequest": _request(tei.ROWS, "inputs"),
        "TeiVectors": _array(_array(_NUMBER)),
        "TeiSimilarityRequest": _object(
            ("inputs",),
            inputs=sentences,
            parameters=_or_null(_object((), **options)),
            model=_TEXT_OR_NULL,
        ),
        "TeiScores": _array(_NUMBER),
        "TeiPredictRequest": _request(tei_predict.ROWS, "inputs"),
        "TeiPredictResponse": {"anyOf": [_array(prediction), _array(_array(prediction))]},
        "TeiRerankRequest": _request(tei_rerank.ROWS, "query", "texts"),
        "TeiRerankResponse": _array(rank),
        "TokenizeRequest": _request(hf_tokens.TOKENIZE_ROWS, "inputs"),
        "TokenizeResponse": {"anyOf": [_array(simple), _array(_array(simple))]},
        "DecodeRequest": _request(hf_tokens.DECODE_ROWS, "ids"),
        "DecodeResponse": _array(_TEXT),
        "AnyRerankRequest": {"anyOf": [_ref("TeiRerankRequest"), _ref("RerankRequest")]},
        "AnyRerankResponse": {"anyOf": [_ref("TeiRerankResponse"), _ref("RerankResponse")]},
        "RerankRequest": _request(rerank.ROWS, "query", "documents"),
        "RerankResponse": _object(
            ("id", "model", "results", "meta"),
            id=_TEXT,
            object={"const": "list"},
            model=_TEXT,
            results=_array(ranked),
            usage=_object(
                ("prompt_tokens", "total_tokens"), prompt_tokens=_COUNT, total_tokens=_COUNT
            ),
            meta={"type": "object"},
        ),
        "RerankError": _object(("id", "message", "detail"), id=_TEXT, message=_TEXT, detail=_TEXT),
    }


def _post(
    summary: str,
    request: str,
    response: str | None,
    media_type: str = "application/json",
    *,
    error: str = "HfError",
    bad: int = 422,
    able: int | None = None,
) -> _Json:
    answer = {
        "description": "The answer.",
        "content": {media_type: {} if response is None else {"schema": _ref(response)}},
    }
    refusals = {
        str(400 if status == 422 else status) if bad == 400 else str(status): _answer(
            why, _ref(error)
        )
        for status, why in _REFUSALS.items()
        if bad != 400 or status != 424
    }
    if able is not None:
        refusals[str(able)] = _answer("The model's tokenizer is not at hand.", _ref(error))
    return {
        "post": {
            "summary": summary,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref(request)}},
            },
            "responses": {"200": answer, **refusals},
        }
    }


def _request(rows: Mapping[str, tuple[str, Check]], *required: str) -> _Json:
    properties = {
        name: schema_of(check) if name in required else _or_null(schema_of(check))
        for name, (_, check) in rows.items()
    }
    return _object(required, **properties)


def _answer(description: str, schema: _Json) -> _Json:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ref(schema: str) -> _Json:
    return {"$ref": f"#/components/schemas/{schema}"}


def _object(required: tuple[str, ...] = (), **properties: _Json) -> _Json:
    schema: _Json = {"type": "object", "properties": properties}
    if required:
        schema["required"] = list(required)
    return schema


def _array(items: _Json) -> _Json:
    return {"type": "array", "items": items}


def _or_null(schema: _Json) -> _Json:
    return {"anyOf": [schema, {"type": "null"}]}
