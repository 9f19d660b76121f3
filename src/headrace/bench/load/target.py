"""Whom a load test asks: the address, the paths of its faces, the key, TLS."""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from attrs import field, frozen

from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError, LLMUnavailableError
from headrace.contracts.load import Kind, LoadPlan

if TYPE_CHECKING:
    import ssl

PATHS: dict[Kind, str] = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "responses": "/responses",
    "messages": "/messages",
    "embeddings": "/embeddings",
    "rerank": "/rerank",
}

_KEYS_OF = {"api.openai.com": "OPENAI_API_KEY", "api.anthropic.com": "ANTHROPIC_API_KEY"}
_VERSION = re.compile(r"/v[0-9]+[a-z0-9]*(/|$)")
"""Some name another version, or have more behind it: /api/v3, /v1beta/openai."""

OWN_KEY = "HEADRACE_API_KEY"


@frozen(kw_only=True)
class Target:
    """``base`` is the path before the face's own, ``/v1`` with it; ``head`` are header lines."""

    secure: bool
    host: str
    port: int
    base: str
    head: bytes = field(repr=False)
    key_env: str
    has_key: bool

    @property
    def peer(self) -> str:
        """How messages name it."""
        return f"{self.host}:{self.port}"


def target_of(plan: LoadPlan) -> Target:
    """The target of ``plan``; LLMInvalidRequestError where its URL is none."""
    url = plan.url if "://" in plan.url else f"http://{plan.url}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _wrong_url(plan.url, str(error)) from error
    if "unix" in parts.scheme or plan.url.startswith("/"):
        raise _wrong_url(plan.url, "a unix socket cannot be load-tested; let it listen on a port")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _wrong_url(plan.url, "it needs a host, and http or https before it")
    if parts.username is not None or parts.query or parts.fragment:
        raise _wrong_url(plan.url, "it is a base without user, query and fragment; see --key-env")
    base = parts.path.rstrip("/")
    for path in PATHS.values():
        base = base.removesuffix(path)
    if _VERSION.search(base) is None:
        base += "/v1"
    host = parts.hostname
    secure = parts.scheme == "https"
    key_env, key = _key(plan, host)
    return Target(
        secure=secure,
        host=host,
        port=port or (443 if secure else 80),
        base=base,
        head=_head(plan, parts.netloc, key),
        key_env=key_env,
        has_key=key is not None,
    )


def _wrong_url(url: str, why: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"url is {url!r}: {why}; right would be http://127.0.0.1:8000", param="url"
    )


def _key(plan: LoadPlan, host: str) -> tuple[str, str | None]:
    """A key is only for whom it was made: nobody else's goes to a server because it is set."""
    name = plan.key_env or _KEYS_OF.get(host, OWN_KEY)
    key = os.environ.get(name, "").strip()
    if plan.key_env is not None and not key:
        raise LLMAuthError(
            f"key_env is {name!r}, but no environment variable of that name holds a key",
            param="key_env",
        )
    if key and not (key.isascii() and key.isprintable()):
        raise LLMAuthError(f"the key in {name} holds characters that no header can carry")
    return name, key or None


def _head(plan: LoadPlan, netloc: str, key: str | None) -> bytes:
    given = {
        "host": netloc,
        "user-agent": "headrace",
        "accept": "text/event-stream, application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
    }
    if plan.kind == "messages":
        given["anthropic-version"] = "2023-06-01"
        if key is not None:
            given["x-api-key"] = key
    elif key is not None:
        given["authorization"] = f"Bearer {key}"
    for name, value in plan.headers:
        if not name or any(each in name + value for each in "\r\n\0") or ":" in name:
            raise LLMInvalidRequestError(
                f"header {name!r} cannot be sent: a name without ':' and a value of one line, "
                "please",
                param="headers",
            )
        given[name.lower()] = value
    return "".join(f"{name}: {value}\r\n" for name, value in given.items()).encode("utf-8")


def addresses_of(target: Target) -> list[tuple[socket.AddressFamily, tuple[object, ...]]]:
    """Where the target can be reached, the best way first."""
    try:
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise LLMUnavailableError(
            f"the host {target.host!r} is not known here ({error.strerror}); look at the URL"
        ) from error
    return [(family, address) for family, _, _, _, address in found]


def tls_of(plan: LoadPlan, target: Target) -> ssl.SSLContext | None:
    """How the target's certificate is looked at; None where there is none."""
    if not target.secure:
        return None
    import ssl

    try:
        context = ssl.create_default_context(cafile=plan.ca_file and str(plan.ca_file))
    except OSError as error:
        raise LLMInvalidRequestError(
            f"ca_file is {str(plan.ca_file)!r}, which cannot be read as certificates: {error}",
            param="ca_file",
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if plan.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
