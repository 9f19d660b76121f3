"""What S3 answers: errors, with what to do about them, and listings."""

from __future__ import annotations

from urllib.parse import unquote_plus
from xml.etree import ElementTree

from headrace.contracts.errors import LLMBadResponseError, LLMError
from headrace.net.transport import HttpReply
from headrace.stores.secret import redact
from headrace.stores.web import kind_of_status
from headrace.wire.openai_errors import retry_after_s

# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_ADVICE = {
    "AccessDenied": "the key may not do this; look at the bucket's policy and the key's rights",
    "InvalidAccessKeyId": "look at AWS_ACCESS_KEY_ID: this server does not know it",
    "SignatureDoesNotMatch": "look at AWS_SECRET_ACCESS_KEY: it does not go with AWS_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "set this machine's clock: it differs from the server's",
    "ExpiredToken": "AWS_SESSION_TOKEN has expired: get a new one",
    "InvalidToken": "AWS_SESSION_TOKEN does not go with the key: get a new one, or unset it",
    "NoSuchBucket": "there is no such bucket at this server; look at its name and AWS_ENDPOINT_URL_S3",
    "NoSuchKey": "there is no such object; see what there is: headrace model list s3://BUCKET/",
    "PermanentRedirect": "the bucket is elsewhere",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
}
_BY_STATUS = {403: "AccessDenied", 404: "NoSuchKey"}
_AUTH = frozenset(
    ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken")
)


def error_of(reply: HttpReply, body: bytes, what: str) -> LLMError:
    """The error that an answer means; an answer to HEAD has no body, and its status must do."""
    code, said = "", body.decode("utf-8", "replace").strip()[:500]
    # What stands before the server, or a server in trouble, answers in a language of its own.
    tree = _xml_or_none(body)
    if tree is not None and tree.tag.rpartition("}")[2] == "Error":
        code, said = _child(tree, "Code") or "", _child(tree, "Message") or ""
    kind, transient = kind_of_status(401 if code in _AUTH else reply.status)
    words = f"{what}: {code or f'status {reply.status}'}"
    if advice := _ADVICE.get(code or _BY_STATUS.get(reply.status, "")):
        words += f"; {advice}"
    if region := reply.headers.get("x-amz-bucket-region"):
        words += f" (the bucket's region is {region}: set AWS_REGION)"
    return kind(
        words,
        transient=transient,
        provider_message=redact(said) or None,
        code=code or None,
        retry_after_s=retry_after_s(reply.headers),
    )


def read_listing(
    body: bytes,
) -> tuple[list[tuple[str, int, str | None, str | None]], str | None]:
    """Key, size, ETag and time of each object, and the token by which there are more."""
    tree = read_xml(body)
    encoded = _child(tree, "EncodingType") == "url"
    found = []
    for entry in tree:
        if entry.tag.rpartition("}")[2] != "Contents":
            continue
        key, size = xml_text(entry, "Key"), xml_text(entry, "Size")
        if not size.isdigit():
            raise LLMBadResponseError(f"S3's listing has the size {size!r} for {key!r}")
        key = unquote_plus(key) if encoded else key
        found.append((key, int(size), _child(entry, "ETag"), _child(entry, "LastModified")))
    more = _child(tree, "IsTruncated") == "true"
    return found, xml_text(tree, "NextContinuationToken") if more else None


def read_xml(body: bytes) -> ElementTree.Element:
    """The tree of an answer; LLMBadResponseError where it is none."""
    try:
        # expat bounds what entities may grow to, since 2.4.1, and fetches none.
        return ElementTree.fromstring(body)  # noqa: S314
    except ElementTree.ParseError as error:
        raise LLMBadResponseError(f"S3's answer is no XML: {error}") from error


def _xml_or_none(body: bytes) -> ElementTree.Element | None:
    try:
        return read_xml(body)
    except LLMBadResponseError:
        return None


def xml_text(tree: ElementTree.Element, name: str) -> str:
    """The text of the child ``name``; LLMBadResponseError where there is none."""
    text = _child(tree, name)
    if text is None:
        raise LLMBadResponseError(f"S3's answer {tree.tag} has no {name}")
    return text


def _child(tree: ElementTree.Element, name: str) -> str | None:
    for child in tree:
        if child.tag.rpartition("}")[2] == name:
            return child.text or ""
    return None
