"""What a route may look at in a request on the fast way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headrace.contracts.requests import TaskProfile
from headrace.traffic.routing.asking import body_tokens
from headrace.wire.passing import PassingRequest


class PassingAsking:
    """An Asking (see traffic.routing) of a request of which only the settings were read.

    ``fields`` are its headers. One with a task profile takes the general way.
    """

    __slots__ = ("_body", "_fields", "_request", "model")

    def __init__(
        self,
        request: PassingRequest,
        body: bytes,
        fields: Mapping[bytes, bytes],
        model: str,
    ) -> None:
        self.model: str | None = model
        self._request = request
        self._body = body
        self._fields = fields

    @property
    def profile(self) -> TaskProfile | None:
        return None

    def prompt_tokens(self) -> int:
        return body_tokens(self._body)

    def answer_tokens(self, unbounded: int) -> int:
        most = self._request.answer_tokens
        return unbounded if most is None else most

    def session(self, names: Sequence[str]) -> str | None:
        for name in names:
            if name == "user":
                found = self._request.end_user
            else:
                found = self._fields.get(name.encode(), b"").decode("latin-1")
            if found:
                return found
        return None

    def head(self, most_bytes: int) -> bytes:
        return self._request.head(most_bytes)
