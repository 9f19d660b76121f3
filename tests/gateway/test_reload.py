"""SIGHUP: the configuration is read again; what runs goes on, the next request sees only the new."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import signal
import socket
import subprocess
import threading
import time

import pytest
import yaml

from gateway.far import NO_MODEL, far
from gateway.served import (
    MODEL,
    PATIENCE_S,
    Served,
    command,
    environment,
    is_alive,
    until,
)

READ, WRONG = "was read again", "everything stays as it was"
TOGETHER_S = 2.0


@contextlib.contextmanager
def serving(folder, config, **variables):
    served = Served(folder, {**NO_MODEL, **config}, **variables)
    try:
        yield served
    finally:
        served.stop()


def write(served, config):
    """Put ``config`` in the place of the file that was read, in one step."""
    path = served.log_path.with_name("gateway.yaml")
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump({**NO_MODEL, **config}))
    new.replace(path)


def hang_up(served, said=READ):
    """Have the file read again, and wait until that is told; the line."""
    before = served.log.count(said)
    served.process.send_signal(signal.SIGHUP)
    until(lambda: served.log.count(said) > before)
    return [line for line in served.log.splitlines() if said in line][-1]


def said(reply):
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"]["content"]


def test_the_next_request_is_answered_by_the_new_configuration(tmp_path):
    with far("one", "two") as (one, two):
        first = {"backends": [one.backend(api_key="k1")]}
        with serving(tmp_path, first) as served:
            assert said(served.chat(model="m")) == "one m k1"
            write(served, {"backends": [two.backend(api_key="k2", models=["m", "n"])]})
            hang_up(served)
            assert said(served.chat(model="m")) == "two m k2"
            assert said(served.chat(model="n")) == "two n k2"
            listed = served.get("/v1/models").json["data"]
            assert [model["id"] for model in listed] == ["m"]
            assert served.get("/ready").json["backends"].keys() == {"two"}
            assert served.metric("headrace_requests_total", backend="one") == 1
            assert served.metric("headrace_requests_total", backend="two") == 2


def test_a_wrong_configuration_is_one_line_and_changes_nothing(tmp_path):
    with far("one") as (one,):
        right = {"backends": [one.backend()], "server": {"api_keys": ["right"]}}
        with serving(tmp_path, right) as served:
            for wrong, words in (
                ({"backends": [one.backend(max_retries=-1)]}, "max_retries"),
                ({"backends": [one.backend(), one.backend()]}, "two backends answer"),
                ({"backends": [one.backend(api_key_env="NOBODY_SET_THIS")]}, "NOBODY_SET_THIS"),
                ({"server": {"prot": 1}}, "prot"),
                ({}, "nothing to serve"),
            ):
                write(served, wrong)
                assert words in hang_up(served, WRONG)
                key = {"authorization": "Bearer right"}
                assert said(served.chat(model="m", headers=key)) == "one m no key"
                assert served.chat(model="m").status == 401
            served.log_path.with_name("gateway.yaml").unlink()
            assert "cannot be read" in hang_up(served, WRONG)
            assert "Traceback" not in served.log


def test_keys_and_limits_change_with_it(tmp_path):
    with far("one") as (one,):
        backends = [one.backend()]
        with serving(tmp_path, {"backends": backends}) as served:
            assert served.chat(model="m").status == 200
            assert b'data-needs-key="no"' in served.get("/").body
            limits = {"api_keys": ["new"], "max_body_bytes": 1024}
            write(served, {"backends": backends, "server": limits})
            hang_up(served)
            assert served.chat(model="m").status == 401
            key = {"authorization": "Bearer new"}
            assert served.chat(model="m", headers=key).status == 200
            assert served.chat("x" * 2000, model="m", headers=key).status == 413
            assert b'data-needs-key="yes"' in served.get("/").body
            write(served, {"backends": backends, "logging": {"requests": False}})
            hang_up(served)
            assert served.chat(model="m", headers={"x-request-id": "quiet"}).status == 200
            hang_up(served)
            assert '"quiet"' not in served.log


def test_a_connection_that_has_carried_requests_is_held_to_the_new_keys_and_limits(tmp_path):
    with far("one") as (one,):
        first = {"backends": [one.backend()], "server": {"api_keys": ["old"]}}
        with serving(tmp_path, first) as served:
            connection = socket.create_connection((served.host, served.port), timeout=PATIENCE_S)

            def status(text="hi", key="old"):
                """Of a request that is sent in one piece, as quick clients do."""
                asked = {"model": "m", "messages": [{"role": "user", "content": text}]}
                body = json.dumps(asked).encode()
                connection.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
                    b"content-length: %d\r\n\r\n%b" % (key.encode(), len(body), body)
                )
                reply = http.client.HTTPResponse(connection)
                reply.begin()
                reply.read()
                return reply.status

            assert [status(), status(), status("x" * 2000), status()] == [200] * 4
            write(served, {**first, "server": {"api_keys": ["new"]}})
            hang_up(served)
            assert [status(), status(), status(key="new"), status(key="new")] == [
                401,
                401,
                200,
                200,
            ]
            small = {"api_keys": ["new"], "max_body_bytes": 1024}
            write(served, {**first, "server": small})
            hang_up(served)
            assert [status(key="new"), status("x" * 2000, key="new")] == [200, 413]
            connection.close()


def test_what_needs_a_restart_is_named_and_left_as_it_is(tmp_path):
    with far("one") as (one,):
        backends = [one.backend()]
        with serving(tmp_path, {"backends": backends}) as served:
            new = {
                "backends": backends,
                "server": {"host": "127.0.0.2", "max_connections": 7},
                "batching": {"max_queue_size": 1},
                "records": {"log": True},
            }
            write(served, new)
            line = json.loads(hang_up(served))["message"]
            named = line.partition("wait for a restart: ")[2].split(", ")
            assert set(named) == {
                "batching.max_queue_size",
                "records.log",
                "server.host",
                "server.max_connections",
            }
            assert said(served.chat(model="m")) == "one m no key"
            assert served.get("/snapshot").json["lanes"][0]["max_waiting"] == 512


def test_a_lane_of_which_the_same_is_said_keeps_its_state(tmp_path):
    dead = {"name": "dead", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}
    dead["breaker_failures"] = 1

    def circuits(served):
        return {lane["name"]: lane["circuit"] for lane in served.get("/snapshot").json["lanes"]}

    with far("one") as (one,), serving(tmp_path, {"backends": [dead, one.backend()]}) as served:
        assert served.chat(model="dead").status == 503
        assert circuits(served)["dead"] == "open"
        write(served, {"backends": [one.backend(models=["other"]), dead]})
        hang_up(served)
        assert circuits(served)["dead"] == "open"
        assert served.chat(model="dead").error["code"] == "circuit_open"
        write(served, {"backends": [{**dead, "breaker_open_ms": 20_000}]})
        hang_up(served)
        assert circuits(served) == {"dead": "closed"}


def test_what_runs_goes_on_with_what_it_began_with(tmp_path):
    with far("one", "two") as (one, two):
        one.hold()
        with serving(tmp_path, {"backends": [one.backend()]}) as served:
            with served.streaming(model="m") as response:
                write(served, {"backends": [two.backend()], "server": {"api_keys": ["k"]}})
                hang_up(served)
                served.show_key("k")
                assert served.chat(model="m").status == 401
                key = {"authorization": "Bearer k"}
                assert said(served.chat(model="m", headers=key)) == "two m no key"
                one.release()
                assert response.read().endswith(b"data: [DONE]\n\n")
            assert served.metric("headrace_requests_total", backend="one", status="200") == 1


def test_the_model_in_the_box_takes_new_settings_and_keeps_its_engine(box_model, tmp_path):
    engine = {"enabled": True, "kv_tokens": 2048}
    served = Served(tmp_path, {**NO_MODEL, "engine": engine})
    try:
        served.wait_until_ready()
        pid = served.engine_pid()
        ask = {"ignore_eos": True, "max_tokens": None}
        write(served, {"engine": engine, "inference": {"max_tokens": 5, "context_length": 64}})
        hang_up(served)
        assert served.chat(model=MODEL, max_tokens=65).status == 400
        assert served.chat(model=MODEL, **ask).json["usage"]["completion_tokens"] <= 64
        assert served.engine_pid() == pid
    finally:
        served.stop()


def test_reloads_every_tenth_of_a_second_under_load_lose_and_mix_nothing(tmp_path):
    with far("one", "two") as (one, two):
        configs = [
            {
                "backends": [each.backend(api_key=f"key-{each.name}", model=f"own-{each.name}")],
                "server": {"api_keys": ["caller", f"extra-{each.name}"]},
            }
            for each in (one, two)
        ]
        whole = {"one own-one key-one", "two own-two key-two"}
        with serving(tmp_path, configs[0], HEADRACE_LOG_LEVEL="info") as served:
            end = time.monotonic() + TOGETHER_S
            answers: list[str] = []
            strange: list[object] = []

            def ask():
                headers = {"content-type": "application/json", "authorization": "Bearer caller"}
                body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
                with contextlib.closing(served.connect()) as connection:
                    while time.monotonic() < end:
                        connection.request(
                            "POST", "/v1/chat/completions", json.dumps(body), headers
                        )
                        reply = connection.getresponse()
                        read = reply.read()
                        if reply.status != 200:
                            strange.append((reply.status, read))
                            return
                        text = json.loads(read)["choices"][0]["message"]["content"]
                        (answers if text in whole else strange).append(text)

            callers = [threading.Thread(target=ask) for _ in range(8)]
            for caller in callers:
                caller.start()
            count = 0
            while time.monotonic() < end:
                count += 1
                write(served, configs[count % 2])
                served.process.send_signal(signal.SIGHUP)
                time.sleep(0.1)
            for caller in callers:
                caller.join(PATIENCE_S)
            assert strange == []
            assert set(answers) == whole
            hang_up(served)
            counted = served.log.count(READ)
            assert counted > 2
            served.show_key("caller")
            assert served.metric("headrace_requests_total", status="200") == len(answers)


def test_without_a_file_there_is_nothing_to_read_again(tmp_path):
    path = tmp_path / "gateway.log"
    with path.open("wb") as log:
        # The embedding model is not loaded before somebody asks for it.
        process = subprocess.Popen(
            command("serve", "--port", "0"),
            env=environment(HEADRACE_ENGINE__ENABLED="false"),
            stdin=subprocess.DEVNULL,
            stderr=log,
        )
    try:
        until(lambda: "stop: Ctrl-C" in path.read_text())
        process.send_signal(signal.SIGHUP)
        until(lambda: "no configuration file to read again" in path.read_text())
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("survives", [False, True], ids=["closed", "nohup"])
def test_a_closed_terminal_ends_the_server_unless_it_was_told_to_survive(tmp_path, survives):
    path = tmp_path / "gateway.yaml"
    backends = [{"name": "nobody", "base_url": "http://127.0.0.1:9/v1"}]
    path.write_text(yaml.safe_dump({**NO_MODEL, "backends": backends}))
    log = (tmp_path / "gateway.log").open("wb")
    pid, terminal = pty.fork()
    if pid == 0:
        # Whoever runs the tests may have been told to survive its terminal, and hand that on.
        signal.signal(signal.SIGHUP, signal.SIG_IGN if survives else signal.SIG_DFL)
        os.dup2(log.fileno(), 2)
        words = command("serve", str(path), "--port", "0")
        os.execve(words[0], words, environment())
    log.close()
    try:
        until(lambda: "stop: Ctrl-C" in (tmp_path / "gateway.log").read_text())
        os.close(terminal)
        if survives:
            until(lambda: READ in (tmp_path / "gateway.log").read_text())
            os.kill(pid, signal.SIGTERM)
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
