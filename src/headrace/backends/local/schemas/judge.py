"""Whether an answer meets the caller's own schema: the last word, whatever held the engine to it."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from threading import Lock
from typing import Any, NoReturn

from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.wire import json as wire_json

_MOST_KEPT = 256
_MOST_SAID = 200


class Judges:
    """Makes judges, and keeps the latest by the hash of their schema; safe to use from threads."""

    def __init__(self) -> None:
        self._kept: OrderedDict[bytes, Judge] = OrderedDict()
        self._lock = Lock()

    def judge(self, schema: Any, param: str) -> Judge:
        """The judge of ``schema``; LLMInvalidRequestError where it is none."""
        key = sha256(wire_json.encode(schema)).digest()
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                return found
        made = Judge(schema, param)
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return made


class Judge:
    """Reads JSON Schema as its ``$schema`` says, else as draft 2020-12, formats included."""

    def __init__(self, schema: Any, param: str) -> None:
        self._validator = _validator(schema, param)

    def fault(self, text: str) -> str | None:
        """What is wrong with ``text`` as an answer, or ``None``."""
        import jsonschema_rs

        try:
            # Of two equal names the last one counts: a grammar cannot keep them apart.
            value = wire_json.decode_reply(text.encode())
        except LLMBadResponseError as error:
            return f"it is not JSON: {error.message}"[:_MOST_SAID]
        try:
            self._validator.validate(value)
        except jsonschema_rs.ValidationError as error:
            at = "/".join(map(str, error.instance_path))
            return f"{error.message[:_MOST_SAID]} (at /{at})"
        return None


def _validator(schema: Any, param: str) -> Any:
    import jsonschema_rs

    # Its own expressions only: no look-around, but no way to spend minutes on one text either.
    how: dict[str, Any] = {
        "validate_formats": True,
        "retriever": _retrieve,
        "pattern_options": jsonschema_rs.RegexOptions(),
    }
    drafts: list[Any] = [jsonschema_rs.Draft202012Validator]
    if isinstance(schema, dict) and "$schema" in schema:
        try:
            return jsonschema_rs.validator_for(schema, **how)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            if "$schema" not in str(error) and "specification" not in str(error):
                _refuse(error, param)
            schema = {key: value for key, value in schema.items() if key != "$schema"}
    # Without a word about its draft, one written for an older draft is read as such.
    drafts += [jsonschema_rs.Draft7Validator, jsonschema_rs.Draft4Validator]
    first: Exception | None = None
    for draft in drafts:
        try:
            return draft(schema, **how)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            first = first or error
    assert first is not None
    _refuse(first, param)


def _refuse(error: Exception, param: str) -> NoReturn:
    said = getattr(error, "message", None) or str(error)
    raise LLMInvalidRequestError(
        f"this is no valid JSON Schema: {said[:_MOST_SAID]}", param=param, code="invalid_value"
    ) from error


def _retrieve(uri: str) -> NoReturn:
    raise LookupError(f"'{uri}' lies outside of the schema, and is not fetched; put it in '$defs'")
