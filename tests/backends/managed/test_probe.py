"""What answers at an address, told apart: a model server, a gateway of ours, anything else, nobody."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import pytest
from attrs import frozen

from headrace.backends.managed.probe import listed, probe
from headrace.contracts.errors import LLMBadResponseError, LLMUnavailableError

BASE = "http://127.0.0.1:9/v1"


@frozen
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {}

    async def read(self, limit: int) -> bytes:
        if len(self.body) > limit:
            raise LLMBadResponseError(f"more than {limit} bytes")
        return self.body

    async def aclose(self) -> None:
        pass

    def __aiter__(self) -> AsyncIterator[bytes]:
        raise NotImplementedError


class Scripted:
    """A transport that answers by path; others are refused."""

    def __init__(self, **replies: Reply) -> None:
        self.replies = replies
        self.seen = []

    async def send(self, request, limits):
        assert limits.total_s
        self.seen.append(request)
        name = request.url.target.strip("/").replace("/", "_")
        if name not in self.replies:
            raise LLMUnavailableError("refused")
        return self.replies[name]


def models(*names, **more):
    return json.dumps({"data": [{"id": name, **more} for name in names]}).encode()


def look(transport, key=None):
    return asyncio.run(probe(BASE, transport, key))


def test_a_model_server_is_known_by_its_list():
    found = look(Scripted(v1_models=Reply(body=models("a", "b"))))
    assert found.serves(["b", "x"]) == "b"
    assert found.serves(["x"]) is None
    assert found.told() == "a server of 'a', 'b'"


def test_a_model_is_known_by_its_other_names_too_and_asked_for_by_its_first():
    found = look(Scripted(v1_models=Reply(body=models("short", root="/models/long"))))
    assert found.serves(["/models/long"]) == "short"


def test_the_list_may_lie_at_the_root():
    missing = Reply(404, b"{}")
    found = look(Scripted(v1_models=missing, models=Reply(body=models("a"))))
    assert found.serves(["a"]) == "a"
    found = look(Scripted(v1_models=missing, models=missing))
    assert found.told() == "something that lists no models (it answered 404)"


def test_a_gateway_of_ours_serves_nothing_whatever_it_lists():
    reply = Reply(body=models("a"), headers={"server": "headrace"})
    found = look(Scripted(v1_models=reply))
    assert found.serves(["a"]) is None
    assert "gateway" in found.told()


def test_nobody_is_nothing():
    assert look(Scripted()) is None


def test_a_list_without_end_is_not_read_to_it():
    found = look(Scripted(v1_models=Reply(body=b"x" * (2 << 20))))
    assert found.models is None
    assert "does not answer as a model server" in found.told()


def test_one_that_asks_for_another_key_says_so():
    assert "another key" in look(Scripted(v1_models=Reply(401, b"{}"))).told()


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]x", b'{"data": 1}', b'{"data": [{"no": 1}]}'])
def test_what_is_no_list_is_none(body):
    assert listed(body) is None
