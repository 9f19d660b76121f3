"""Who may ask: API keys, compared in constant time and known to us only by their hashes."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Sequence

from headrace.contracts.errors import LLMAuthError, LLMInvalidRequestError
from headrace.gateway.config import ServerConfig

_SCHEME = b"bearer "


class Guard:
    """Checks the key that a caller shows; with no keys configured, everyone may come in."""

    def __init__(self, key_hashes: Sequence[str]) -> None:
        self._hashes = [bytes.fromhex(text.removeprefix("sha256:")) for text in key_hashes]

    def check(self, authorization: bytes | None, api_key: bytes | None = None) -> None:
        """Raises LLMAuthError unless one of the two headers' values holds a known key.

        ``authorization`` is a bearer's; ``api_key`` is ``x-api-key``, in which Anthropic's clients
        show theirs.
        """
        if not self._hashes or (api_key is not None and self._knows(api_key)):
            return
        if authorization is None and api_key is not None:
            raise LLMAuthError("the API key is not one of this server's")
        if authorization is None:
            raise LLMAuthError(
                "this server needs an API key: send the header 'Authorization: Bearer <key>' "
                "or 'x-api-key: <key>'"
            )
        if authorization[: len(_SCHEME)].lower() != _SCHEME:
            raise LLMAuthError("the Authorization header must have the form 'Bearer <key>'")
        if not self._knows(authorization[len(_SCHEME) :]):
            raise LLMAuthError("the API key is not one of this server's")

    def _knows(self, key: bytes) -> bool:
        shown = hashlib.sha256(key.strip()).digest()
        # Every hash is compared, so that the time taken tells nothing about which one fits.
        known = 0
        for expected in self._hashes:
            known |= hmac.compare_digest(shown, expected)
        return bool(known)


def check_binding(server: ServerConfig) -> None:
    """Refuse to listen beyond this machine without keys, unless that was asked for."""
    if server.api_keys or server.allow_anonymous or _is_loopback(server.host):
        return
    raise LLMInvalidRequestError(
        f"listening on {server.host} lets anyone on the network use this server: set "
        "server.api_keys (or HEADRACE_API_KEYS), or server.allow_anonymous: true to allow it",
        param="server.host",
    )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
