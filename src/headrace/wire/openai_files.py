"""The files that OpenAI and Mistral keep for batches, both ways; one object has the fields of both.

https://platform.openai.com/docs/api-reference/files, https://docs.mistral.ai/api/endpoint/files
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from headrace.contracts.batches import KeptFile
from headrace.contracts.errors import LLMBadResponseError, LLMInvalidRequestError
from headrace.wire.batch_pieces import instant, reply_object, said, whole
from headrace.wire.json import encode
from headrace.wire.openai_fields import integer, one_of, refuse_absence

PURPOSES = ("batch",)
"""What a file may be brought for; those that we make are for ``batch_output``."""
FORM_FIELDS = (
    "file",
    "purpose",
    "expires_after[anchor]",
    "expires_after[seconds]",
    "expiry",
    "visibility",
)
_purpose = one_of(*PURPOSES)
_anchor = one_of("created_at")
_seconds = integer(3600, 30 * 24 * 3600)
_hours = integer(1, 30 * 24)
_visibility = one_of("workspace", "user")


@frozen(kw_only=True)
class Upload:
    """What a form says of its file; ``kept_s`` is how long it is kept, where that is said."""

    purpose: str
    kept_s: int | None = None


def form_fields(purpose: str = "batch", kept_s: int | None = None) -> dict[str, str]:
    """What stands in a form beside its file."""
    if kept_s is None:
        return {"purpose": purpose}
    return {
        "purpose": purpose,
        "expires_after[anchor]": "created_at",
        "expires_after[seconds]": str(kept_s),
    }


def read_form(fields: Mapping[str, str]) -> Upload:
    """What a form's ``fields`` say; LLMInvalidRequestError, naming the field, where they are wrong."""
    for name in fields:
        if name not in FORM_FIELDS:
            raise LLMInvalidRequestError(
                f"Unknown parameter: '{name[:100]}'. Known: {', '.join(FORM_FIELDS)}.",
                param=name[:100],
                code="unknown_parameter",
            )
    if "purpose" not in fields:
        refuse_absence("purpose", "'batch'")
    if "visibility" in fields:
        # Files are their key's here; a workspace of several keys there is none.
        _visibility(fields["visibility"], "visibility")
    kept_s = None
    if "expires_after[anchor]" in fields or "expires_after[seconds]" in fields:
        _anchor(fields.get("expires_after[anchor]"), "expires_after[anchor]")
        kept_s = _seconds(_number(fields.get("expires_after[seconds]")), "expires_after[seconds]")
    elif "expiry" in fields:
        kept_s = 3600 * _hours(_number(fields["expiry"]), "expiry")
    return Upload(purpose=_purpose(fields["purpose"], "purpose"), kept_s=kept_s)


def write_file(file: KeptFile) -> bytes:
    """``file`` as a body."""
    return encode(file_to_wire(file))


def read_file(body: bytes) -> KeptFile:
    """The file in a server's answer."""
    return file_from_wire(reply_object(body, "A file"))


def write_files(files: Sequence[KeptFile], *, has_more: bool, total: int) -> bytes:
    """A page of a list."""
    return encode(
        {
            "object": "list",
            "data": [file_to_wire(each) for each in files],
            "first_id": files[0].file_id if files else None,
            "last_id": files[-1].file_id if files else None,
            "has_more": has_more,
            "total": total,
        }
    )


def read_files(body: bytes) -> tuple[tuple[KeptFile, ...], bool]:
    """A page of a list, and whether more follow."""
    wire = reply_object(body, "A list of files")
    data = wire.get("data")
    if not isinstance(data, list):
        raise LLMBadResponseError("A list of files has an array 'data'.")
    return tuple(file_from_wire(each) for each in data), bool(wire.get("has_more"))


def write_deletion(file_id: str) -> bytes:
    """That a file is gone."""
    return encode({"id": file_id, "object": "file", "deleted": True})


def file_to_wire(file: KeptFile) -> dict[str, Any]:
    """``file`` in the form of both."""
    if not file.is_ours:
        sample = "batch_request"
    else:
        sample = "batch_error" if file.name.endswith("_error.jsonl") else "batch_result"
    return {
        "id": file.file_id,
        "object": "file",
        "bytes": file.size,
        "created_at": file.created,
        "expires_at": file.expires,
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "sample_type": sample,
        "source": "mistral" if file.is_ours else "upload",
        "num_lines": file.lines,
        "mimetype": "application/jsonl",
        "deleted": False,
    }


def file_from_wire(wire: dict[str, Any]) -> KeptFile:
    """The file that a server tells of."""
    expires, lines = instant(wire.get("expires_at")), wire.get("num_lines")
    return KeptFile(
        file_id=said(wire, "id", "A file"),
        name=str(wire.get("filename") or ""),
        purpose=str(wire.get("purpose") or ""),
        size=whole(wire.get("bytes")),
        created=int(instant(wire.get("created_at")) or 0),
        expires=None if expires is None else int(expires),
        lines=lines if type(lines) is int else None,
        is_ours=wire.get("purpose") == "batch_output" or wire.get("source") == "mistral",
    )


def _number(text: str | None) -> object:
    return int(text) if text is not None and text.isascii() and text.isdigit() else text
