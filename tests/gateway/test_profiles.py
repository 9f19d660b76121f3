"""Profiles by way of the gateway: real processes, and a service in memory for what they cannot show."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.parse
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from gateway.far import NO_MODEL
from gateway.served import Served, until
from headrace.contracts.convert import from_json, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profiling import (
    LLMProfileAccepted,
    LLMProfileRequest,
    ProfileArtifact,
    ProfileStatus,
)
from headrace.gateway.app import Gateway
from headrace.gateway.config import Config
from headrace.gateway.guard import Guard
from headrace.gateway.routes import Routes
from headrace.gateway.standing import Standing
from headrace.net.manual_clock import ManualClock
from headrace.numbers.live import Tally
from headrace.traffic.call import Traffic

KEY = "hr-key-for-profiles"
ASK = {"model_path": "/m", "input_dir": "/d", "device": "cpu"}


# A gateway as an operator starts it. There is no model to profile: the run's process says so.


@pytest.fixture(scope="module", params=[1, 2], ids=["alone", "two workers"])
def served(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "model").mkdir()
    (folder / "inputs").mkdir()
    (folder / "inputs" / "a.txt").write_text("Say hello.")
    config = {
        **NO_MODEL,
        "server": {"workers": request.param},
        "backends": [{"name": "dead", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}],
        "profiles": {"enabled": True, "folder": str(folder / "runs"), "roots": [str(folder)]},
    }
    served = Served(folder, config)
    served.folder = folder
    try:
        yield served
    finally:
        assert served.stop() == 0


def _asked(served: Served, **change: object) -> dict[str, Any]:
    inputs, model = str(served.folder / "inputs"), str(served.folder / "model")
    return {"model_path": model, "input_dir": inputs, "device": "cpu", **change}


def test_a_run_is_taken_in_followed_and_told_as_failed_where_it_cannot_be_made(served):
    reply = served.post("/v1/profiles", _asked(served))
    assert reply.status == 202
    accepted = from_json(reply.body, LLMProfileAccepted)
    assert reply.headers["location"] == f"/v1/profiles/{accepted.run_id}"
    assert Path(accepted.artifacts_dir) == served.folder / "runs" / accepted.run_id
    path = f"/v1/profiles/{accepted.run_id}"

    def ended() -> ProfileStatus | None:
        status = from_json(served.get(path).body, ProfileStatus)
        return status if status.state == "failed" else None

    failed = until(ended)
    assert failed.error
    assert (failed.device, failed.summary) == ("cpu", None)
    listed = served.get("/v1/profiles").json["runs"]
    assert failed.run_id in [each["run_id"] for each in listed]
    files = {each["name"]: each for each in served.get(f"{path}/artifacts").json["artifacts"]}
    log = served.get(f"{path}/artifacts/log.txt")
    assert log.status == 200
    assert len(log.body) == files["log.txt"]["size_bytes"]
    assert log.headers["content-disposition"].startswith("attachment")
    assert log.headers["x-content-type-options"] == "nosniff"
    assert served.ask("DELETE", path).json["state"] == "failed"


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model_path": 7}, "model_path", "text"),
        ({"model_path": "m"}, "model_path", "absolute"),
        ({"input_dir": "d"}, "input_dir", "absolute"),
        ({"input_dir": "/etc"}, "input_dir", "profiles.roots"),
        ({"repeats": 0}, "repeats", ">= 1"),
        ({"repeats": 1.5}, "repeats", "whole number"),
        ({"repeats": True}, "repeats", "whole number"),
        ({"warmup": -1}, "warmup", ">= 0"),
        ({"max_new_tokens": 0}, "max_new_tokens", ">= 1"),
        ({"use_flash_attn": "yes"}, "use_flash_attn", "true or false"),
        ({"compile": 1}, "compile", "true or false"),
        ({"random_weights": None}, "random_weights", "true or false"),
        ({"trust_remote_code": True}, "trust_remote_code", "profiles.allow_remote_code"),
        ({"device": None}, "device", "text"),
        ({"device": "tpu"}, "device", "cuda:N"),
        ({"dtype": "int3"}, "dtype", "bf16"),
        ({"attention": "x/y"}, "attention", "sdpa"),
        ({"colour": "red"}, "colour", "colour"),
    ],
)
def test_what_is_wrong_is_told_by_its_field(served, change, param, said):
    reply = served.post("/v1/profiles", _asked(served, **change))
    assert reply.status == 400
    assert reply.error["param"] == param, reply.error
    assert said in reply.error["message"]
    for value in change.values():
        assert str(value) in reply.error["message"] or value in (None, True, "red")


@pytest.mark.parametrize("name", ["model_path", "input_dir"])
def test_what_is_missing_is_told(served, name):
    asked = {key: value for key, value in _asked(served).items() if key != name}
    reply = served.post("/v1/profiles", asked)
    assert reply.status == 400
    assert reply.error["param"] == name


def test_no_json_is_told_and_so_is_an_unknown_run(served):
    assert "not JSON" in served.post("/v1/profiles", b"{").error["message"]
    assert served.post("/v1/profiles", []).status == 400
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("GET", "/artifacts"),
        ("GET", "/artifacts/x"),
    ):
        reply = served.ask(method, f"/v1/profiles/nothing{path}")
        assert (reply.status, reply.error["code"]) == (404, "profile_not_found")


def test_the_openapi_document_says_what_the_contracts_say(served):
    document = served.get("/openapi.json").json
    assert set(document["paths"]["/v1/profiles"]) == {"get", "post"}
    assert set(document["paths"]["/v1/profiles/{run_id}"]) == {"parameters", "get", "delete"}
    schema = document["components"]["schemas"]["LLMProfileRequest"]
    assert schema["properties"]["device"]["default"] == "cuda:0"
    assert all(field["description"] for field in schema["properties"].values())


# A service in memory.


class Kept:
    """One run, whose files lie in a folder."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names
        self.asked: list[LLMProfileRequest] = []
        self.state = ProfileStatus(run_id="one", state="running", artifacts_dir=str(folder))

    async def submit(self, request: LLMProfileRequest) -> LLMProfileAccepted:
        self.asked.append(request)
        return LLMProfileAccepted(run_id="one", status="queued", artifacts_dir=str(self.folder))

    async def status(self, run_id: str) -> ProfileStatus:
        if run_id != "one":
            raise LLMInvalidRequestError(f"there is no {run_id}", status=404)
        return self.state

    async def list(self) -> tuple[ProfileStatus, ...]:
        return (self.state,)

    async def cancel(self, run_id: str) -> ProfileStatus:
        self.state = evolve(await self.status(run_id), state="cancelled")
        return self.state

    async def artifacts(self, run_id: str) -> tuple[ProfileArtifact, ...]:
        await self.status(run_id)
        return tuple(ProfileArtifact(name=name, size_bytes=0) for name in self.names)


def ask(
    service: Kept | None,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
    keys: tuple[str, ...] = (),
) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of one request to a gateway over ``service``."""
    clock = ManualClock(auto=True)
    tally = Tally(clock.monotonic(), models=[])
    config = Config()
    gateway = Gateway(
        standing=Standing(config=config, routes=Routes([]), guard=Guard(keys)),
        traffic=Traffic(clock, tally),
        tally=tally,
        clock=clock,
        profiles=service,
    )
    sent: list[dict[str, Any]] = []
    inbox = [{"type": "http.request", "body": b"" if body is None else json.dumps(body).encode()}]

    async def receive() -> dict[str, Any]:
        return inbox.pop()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": urllib.parse.unquote(path),
        "root_path": "",
        "query_string": b"",
        "headers": [(k.encode(), v.encode()) for k, v in (headers or {}).items()],
    }
    asyncio.run(gateway.application()(scope, receive, send))
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(each.get("body", b"") for each in sent)


def test_every_field_arrives_as_it_was_asked(tmp_path):
    service = Kept(tmp_path, [])
    request = LLMProfileRequest(
        model_path="/m", input_dir="/d", repeats=7, use_flash_attn=False, device="cuda:1", warmup=0,
        max_new_tokens=9, dtype="bf16", compile=True, random_weights=True, trust_remote_code=True,
        attention="sdpa",
    )  # fmt: skip
    status, headers, body = ask(service, "POST", "/v1/profiles", to_plain(request))
    assert status == 202
    assert service.asked == [request]
    assert headers["location"] == "/v1/profiles/one"
    assert json.loads(body) == {
        "run_id": "one",
        "status": "queued",
        "artifacts_dir": str(tmp_path),
    }


def test_a_run_is_listed_told_and_cancelled(tmp_path):
    service = Kept(tmp_path, [])
    assert json.loads(ask(service, "GET", "/v1/profiles")[2])["runs"][0]["run_id"] == "one"
    assert json.loads(ask(service, "GET", "/v1/profiles/one")[2])["state"] == "running"
    assert json.loads(ask(service, "DELETE", "/v1/profiles/one")[2])["state"] == "cancelled"
    assert ask(service, "DELETE", "/v1/profiles/two")[0] == 404
    assert ask(service, "PUT", "/v1/profiles/one")[0] == 405


def test_a_file_comes_whole_whatever_its_size(tmp_path):
    inner = tmp_path / "run"
    (inner / "predictions").mkdir(parents=True)
    large = bytes(range(256)) * 3001
    (inner / "predictions" / "ä page.json").write_bytes(large)
    service = Kept(inner, ["predictions/ä page.json"])
    path = "/v1/profiles/one/artifacts/predictions/%C3%A4%20page.json"
    status, headers, body = ask(service, "GET", path)
    assert (status, body) == (200, large)
    assert headers["content-length"] == str(len(large))
    assert headers["content-type"] == "application/json"
    assert headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20page.json"
    assert "sandbox" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "name",
    ["../secret", "%2e%2e/secret", "/etc/passwd", "link", "inner/link", "linked/secret", "pipe",
     "inner", "gone", "hidden", "a\0b", ""],
)  # fmt: skip
def test_nothing_but_a_plain_listed_file_is_ever_sent(tmp_path, name):
    (tmp_path / "secret").write_text("secret")
    run = tmp_path / "run"
    (run / "inner").mkdir(parents=True)
    (run / "report.json").write_text("{}")
    (run / "hidden").write_text("not listed")
    (run / "link").symlink_to(tmp_path / "secret")
    (run / "inner" / "link").symlink_to(tmp_path / "secret")
    (run / "linked").symlink_to(tmp_path)
    os.mkfifo(run / "pipe")
    # A service that lists too much: the gateway looks for itself.
    listed = [urllib.parse.unquote(name)] if name != "hidden" else []
    status, _, body = ask(Kept(run, listed), "GET", f"/v1/profiles/one/artifacts/{name}")
    assert (status, b"secret" in body and b"secret" not in name.encode()) == (404, False)
    assert b"not listed" not in body


def test_profiles_that_are_off_say_how_to_have_them():
    for method, path in (
        ("POST", "/v1/profiles"), ("GET", "/v1/profiles"), ("GET", "/v1/profiles/x"),
        ("DELETE", "/v1/profiles/x"), ("GET", "/v1/profiles/x/artifacts/y"),
    ):  # fmt: skip
        status, _, body = ask(None, method, path, ASK)
        error = json.loads(body)["error"]
        assert (status, error["code"]) == (404, "profiles_disabled")
        assert "profiles.enabled: true" in error["message"]
    assert "/v1/profiles" not in json.loads(ask(None, "GET", "/openapi.json")[2])["paths"]


def test_keys_are_asked_for_as_everywhere(tmp_path):
    service = Kept(tmp_path, [])
    keys = ("sha256:" + sha256(KEY.encode()).hexdigest(),)
    for method, path in (("POST", "/v1/profiles"), ("GET", "/v1/profiles/one/artifacts")):
        assert ask(service, method, path, ASK, keys=keys)[0] == 401
    assert service.asked == []
    bearer = {"authorization": f"Bearer {KEY}"}
    assert ask(service, "POST", "/v1/profiles", ASK, bearer, keys)[0] == 202


def test_errors_have_the_form_of_who_asks(tmp_path):
    asked = {**ASK, "repeats": 0}
    service = Kept(tmp_path, [])
    assert set(json.loads(ask(service, "POST", "/v1/profiles", asked)[2])) == {"error"}
    theirs = {"anthropic-version": "2023-06-01"}
    body = json.loads(ask(service, "POST", "/v1/profiles", asked, theirs)[2])
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
