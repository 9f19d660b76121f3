"""Keys as values that do not show themselves, and texts with the keys taken out.

A key is shown in one place only: where the header is written that carries it (``reveal``).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from typing import NoReturn
from urllib.parse import quote

from headrace.contracts.errors import LLMAuthError, LLMError

MASK = "***"

# What a header's value may hold (RFC 9110, 5.5), without the spaces that would be cut off.
_SENDABLE = re.compile(r"[!-~]+(?: +[!-~]+)*")


class Secret:
    """Text that is masked wherever it is printed, formatted, logged or made into JSON by ``str``.

    It is not pickled: masked it would be a wrong key on the other side, unmasked a key in a file.
    Two secrets are equal where their texts are.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str, *, source: str = "the key") -> None:
        """``source`` says in an error where an unusable text came from."""
        text = text.strip()
        if not _SENDABLE.fullmatch(text):
            fault = "is empty" if not text else "holds a character that no header can carry"
            raise LLMAuthError(f"{source} {fault}; expected visible ASCII on one line")
        self._text = text

    def reveal(self) -> str:
        """The text itself."""
        return self._text

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest

        return compare_digest(self._text, other._text)

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled; hand over where the key is found instead")


def as_secret(key: str | Secret | None) -> Secret | None:
    """``key`` as a Secret, whichever way it was given."""
    return Secret(key) if isinstance(key, str) else key


# What gives a key away where its text is not known to us: its name before it, or its form.
_NAMED = (
    # A query's parameter.
    re.compile(
        r"(?i)([?&;](?:api[-_]?key|key|(?:access_|auth_|id_)?token|sig|signature|secret|"
        r"client_secret|password)=)[^&;#\s\"'<>\\]+"
    ),
    # A header or a field, as text, as JSON or as a pair; its value may come after a scheme.
    re.compile(
        r"(?i)((?:authorization|\b(?:x-(?:goog-)?)?api[-_]?key)"
        r"(?:[\"']?\s*[:=]\s*(?:b?[\"'])?|[\"']\s*,\s*b?[\"'])(?:(?:bearer|basic|token)\s+)?)"
        r"(?!\s)[^\s\"',;&)}\]\\]+"
    ),
    re.compile(r"(?i)(\bbearer\s+)[A-Za-z0-9._~+/=-]{6,}"),
    # User and password in a URL.
    re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s@:]*:[^/\s@]+(?=@)"),
)
_FORMED = re.compile(
    r"\b(?:(?:sk|pk|rk|gsk|xai|fw|hf|tgp|csk|nvapi)[-_][A-Za-z0-9_-]{16,}|AIza[A-Za-z0-9_-]{30,})"
)
_FIRST = re.compile(r"(?i)key|token|sig|secret|password|authorization|bearer|://")


def redact(text: str, secrets: Iterable[Secret | str | None] = ()) -> str:
    """``text`` with every one of ``secrets`` masked, and whatever else looks like a key."""
    if secrets:
        known = {s.reveal() if isinstance(s, Secret) else s for s in secrets if s}
        forms = {form for key in known for form in (key, quote(key, safe=""))}
        # The longest first: one key may begin like another.
        for form in sorted(forms, key=len, reverse=True):
            text = text.replace(form, MASK)
    if _FIRST.search(text):
        for pattern in _NAMED:
            text = pattern.sub(rf"\g<1>{MASK}", text)
    return _FORMED.sub(MASK, text)


def redact_error(error: LLMError, secrets: Iterable[Secret | None]) -> None:
    """Mask ``secrets`` in what ``error`` says: some servers answer with the key they were shown."""
    known = [secret for secret in secrets if secret is not None]
    error.message = redact(error.message, known)
    for name in ("provider_message", "param", "code", "request_id"):
        said = getattr(error, name)
        if isinstance(said, str):
            setattr(error, name, redact(said, known))
    error.args = tuple(redact(arg, known) if isinstance(arg, str) else arg for arg in error.args)


class RedactingFilter(logging.Filter):
    """Takes keys out of log records: the message, the traceback and the texts in ``extra``.

    Put it on a handler; a filter on a logger does not see what comes from the loggers beneath it.
    """

    def __init__(self, secrets: Iterable[Secret] = ()) -> None:
        super().__init__()
        self._secrets = tuple(secrets)

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with its keys masked."""
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001 - a wrong format is reported by the handler, as always
            return True
        clean = redact(message, self._secrets)
        if clean != message:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[0] is not None:
            # Formatters take a text that is there already.
            text = record.exc_text or logging.Formatter().formatException(record.exc_info)
            record.exc_text = redact(text, self._secrets)
        if record.stack_info:
            record.stack_info = redact(record.stack_info, self._secrets)
        for name, value in list(vars(record).items()):
            if name not in _RECORDS_OWN and isinstance(value, str):
                setattr(record, name, redact(value, self._secrets))
        return True


_RECORDS_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
