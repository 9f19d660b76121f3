"""Which S3 is asked, and as whom. Nobody is the default: there are no keys but those that were named."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError
from headrace.net.transport import Url, parse_url
from headrace.stores.credentials import Credentials
from headrace.stores.secret import Secret

KEY_ID, SECRET_KEY, SESSION_TOKEN = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
)
_TRUE, _FALSE = frozenset(("1", "true", "yes")), frozenset(("", "0", "false", "no"))


@frozen(kw_only=True)
class S3Settings:
    """``endpoint`` is a server of one's own or another cloud's; without it AWS is meant.

    ``anonymous`` asks without a key, which only public buckets allow; nothing else leads there.
    """

    endpoint: Url | None = None
    region: str | None = None
    anonymous: bool = False


@frozen(kw_only=True)
class S3Keys:
    """Who asks: a key, and the token that goes with one of limited time."""

    key_id: str
    secret: Secret
    token: Secret | None = field(default=None)


def s3_settings(environment: Mapping[str, str]) -> S3Settings:
    """As AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, AWS_REGION or AWS_DEFAULT_REGION, and
    HEADRACE_S3_ANONYMOUS say."""
    endpoint = None
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if text := environment.get(name):
            endpoint = read_endpoint(text, name)
            break
    anonymous = environment.get("HEADRACE_S3_ANONYMOUS", "").lower()
    if anonymous not in _TRUE | _FALSE:
        raise LLMInvalidRequestError(
            f"HEADRACE_S3_ANONYMOUS is {anonymous!r}; expected true or false",
            param="HEADRACE_S3_ANONYMOUS",
        )
    return S3Settings(
        endpoint=endpoint,
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
        anonymous=anonymous in _TRUE,
    )


def read_endpoint(text: str, source: str = "endpoint_url") -> Url:
    """The address of a server, as ``source`` names it."""
    try:
        return parse_url(text.rstrip("/"))
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(
            f"{source} is {text!r}: {error}; expected http://HOST:PORT or https://HOST",
            param=source,
        ) from error


def find_keys(settings: S3Settings, credentials: Credentials) -> S3Keys | None:
    """The keys to sign with; ``None`` where it was asked to go without.

    Raises LLMAuthError where there are none, or where the two halves lie in different places and
    so are likely not one key.
    """
    if settings.anonymous:
        return None
    whose = "S3 (or ask without one: --anonymous, HEADRACE_S3_ANONYMOUS=true)"
    key_id = credentials.require(whose, (KEY_ID,))
    secret = credentials.require(whose, (SECRET_KEY,))
    if key_id.source != secret.source:
        raise LLMAuthError(
            f"{KEY_ID} is in {key_id.source}, but {SECRET_KEY} in {secret.source}: they are no "
            "pair; put both in one place"
        )
    token = credentials.find((SESSION_TOKEN,))
    if token is not None and token.source != key_id.source:
        token = None  # it belongs to another key
    return S3Keys(
        key_id=key_id.secret.reveal(),
        secret=secret.secret,
        token=None if token is None else token.secret,
    )
