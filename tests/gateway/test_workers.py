"""Several workers behind one port look like one server, whatever becomes of one of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import stat
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from gateway.far import NO_MODEL, far
from gateway.served import (
    MODEL,
    PATIENCE_S,
    Served,
    children,
    is_alive,
    program,
    run_headrace,
    until,
)
from headrace.contracts.convert import from_json
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.snapshot import Snapshot
from headrace.gateway.config import Config, load
from headrace.gateway.share import Share, check_shares

WORKERS = 2
READ = "was read again"


@contextlib.contextmanager
def serving(folder, config, **variables):
    usual = {"HEADRACE_WORKERS": str(WORKERS), **variables}
    served = Served(folder, {**NO_MODEL, **config}, **usual)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def provider():
    with far("one") as (one,):
        yield one


@pytest.fixture(scope="module")
def quick(provider, tmp_path_factory):
    """A gateway with workers and without a model."""
    config = {
        "backends": [provider.backend(api_key="k1", max_concurrent_requests=1000)],
        "server": {"max_body_bytes": 8192},
    }
    with serving(tmp_path_factory.mktemp("quick"), config) as served:
        yield served


@pytest.fixture(scope="module")
def boxed(box_model, provider, tmp_path_factory):
    """One with the model in the box, and keys."""
    config = {
        "engine": {"kv_tokens": 4096},
        "server": {"api_keys": ["right", "other"]},
        "backends": [provider.backend()],
    }
    with serving(tmp_path_factory.mktemp("boxed"), config) as served:
        served.show_key("right")
        served.wait_until_ready()
        yield served


RIGHT, OTHER = ({"authorization": f"Bearer {key}"} for key in ("right", "other"))


def workers_of(served):
    """The process ids of the workers."""
    return [pid for pid in children(served.process.pid) if "workers.worker" in program(pid)]


def worker_at(served, connection):
    """The process id of the worker at the other end of ``connection``."""
    port = connection.sock.getsockname()[1]
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    at_worker = (f"0100007F:{served.port:04X}", f"0100007F:{port:04X}")
    inode = next(line[9] for line in lines if (line[1], line[2]) == at_worker)
    for pid in workers_of(served):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if descriptor.readlink() == Path(f"socket:[{inode}]"):
                    return pid
    raise AssertionError("no worker has that connection")


def connect_to(served, pid):
    """A connection to the worker ``pid``: the system deals them out as it likes."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        connection = served.connect()
        connection.connect()
        # It is in the worker's hands once an answer has come.
        connection.request("GET", "/health")
        connection.getresponse().read()
        if worker_at(served, connection) == pid:
            return connection
        connection.close()
    raise AssertionError(f"worker {pid} took no connection within a minute:\n{served.log}")


def begin_stream(connection):
    """A streamed answer of the far model that has begun."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
    headers = {"content-type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.readline().startswith(b"data: ")
    return response


def said(reply):
    assert reply.status == 200, reply.body
    return reply.json["choices"][0]["message"]["content"]


def ended(served):
    return served.metric("headrace_requests_total", status="200")


# One server to look at


def test_remote_models_are_asked_by_the_workers_and_counted_together(quick, provider):
    before, asked = ended(quick), provider.asked
    tokens = quick.metric("vllm:generation_tokens_total")
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: quick.chat(model="m"), range(60)))
    assert {said(reply) for reply in replies} == {"one m k1"}
    # At once, from whichever worker, and to the last one.
    assert ended(quick) == before + 60
    assert quick.metric("vllm:generation_tokens_total") == tokens + 180
    for name in ("vllm:e2e_request_latency_seconds", "gen_ai_server_request_duration_seconds"):
        assert quick.metric(f"{name}_count") == ended(quick)
        assert quick.metric(f"{name}_bucket", le="+Inf") == ended(quick)
    assert provider.asked == asked + 60
    snapshot = from_json(quick.get("/snapshot").body, Snapshot)
    assert snapshot.requests["ok"] == ended(quick)
    assert sorted(w.pid for w in snapshot.workers) == sorted(workers_of(quick))
    assert sum(w.requests for w in snapshot.workers) >= 60
    assert all(w.rss_bytes > 1 << 20 for w in snapshot.workers)
    assert snapshot.history is not None
    assert len(snapshot.history.recent) == 50
    assert snapshot.lanes[0].places == 1000


def test_what_runs_at_any_worker_is_seen_at_each(quick, provider):
    provider.hold()
    with contextlib.ExitStack() as stack:
        for pid in workers_of(quick):
            connection = stack.enter_context(contextlib.closing(connect_to(quick, pid)))
            stack.enter_context(begin_stream(connection))
        for _ in range(4):
            assert quick.metric("vllm:num_requests_running") == WORKERS
            assert from_json(quick.get("/snapshot").body, Snapshot).lanes[0].running == WORKERS
    # Their callers have left.
    until(quick.quiet)
    provider.release()
    until(lambda: provider.open == 0)
    assert quick.metric("headrace_requests_total", error_type="LLMCancelledError") == WORKERS


def test_each_request_is_one_line_with_its_id_wherever_it_is_answered(quick):
    for place, (method, path, body) in enumerate(
        [
            ("POST", "/v1/chat/completions", b'{"model": "m", "messages": []}'),
            ("POST", "/v1/responses", b'{"model": "m", "input": "Hi"}'),
            ("GET", "/v1/models", None),
            ("GET", "/nowhere", None),
            ("DELETE", "/v1/models", None),
            ("HEAD", "/health", None),
        ]
    ):
        request_id = f"line-{place}"
        reply = quick.ask(method, path, body, {"x-request-id": request_id})
        assert reply.headers["x-request-id"] == request_id
        line = quick.line_of(request_id)
        assert (line["status"], line["path"]) == (reply.status, path)
        assert sum(each.get("request_id") == request_id for each in quick.log_lines) == 1


def test_what_is_wrong_with_a_body_is_told_as_by_one_process(quick):
    for path in ("/v1/chat/completions", "/v1/responses"):
        assert quick.post(path, {"model": "m", "input": "x" * 9000}).status == 413
    deep = b'{"model": "m", "messages": ' + b"[" * 900 + b"]" * 900 + b"}"
    for body in (b"not JSON", b"[]", b'{"model": "\xff"}', deep, b"[" * 2000):
        assert quick.post("/v1/chat/completions", body).status == 400
    assert quick.chat(model="nobody").status == 404
    assert quick.chat(model=7).status == 400


def test_the_model_in_the_box_answers_through_any_worker(boxed):
    for pid in workers_of(boxed):
        with contextlib.closing(connect_to(boxed, pid)) as connection:
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4}
            for settings in ({}, {"model": MODEL}, {"model": MODEL, "stream": True}):
                connection.request(
                    "POST", "/v1/chat/completions", json.dumps({**body, **settings}), RIGHT
                )
                answer = connection.getresponse()
                assert answer.status == 200
                whole = answer.read()
                if "stream" in settings:
                    assert whole.startswith(b"data: ")
                    assert whole.endswith(b"data: [DONE]\n\n")
                else:
                    assert json.loads(whole)["model"] == MODEL
    count = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]}
    assert boxed.post("/v1/messages/count_tokens", count, RIGHT).json["input_tokens"] > 0
    assert boxed.chat(model="m", headers=RIGHT).status == 200
    assert boxed.chat(model=MODEL).status == 401
    assert boxed.chat(model="m", headers={"authorization": "Bearer wrong"}).status == 401


def test_a_caller_that_leaves_frees_its_place_at_the_engine(boxed):
    with boxed.streaming(model=MODEL, max_tokens=3000, ignore_eos=True):
        assert boxed.metric("vllm:num_requests_running", model_name=MODEL) == 1
    until(boxed.quiet)


def test_what_one_worker_was_told_to_keep_any_other_finds(boxed):
    one, other = workers_of(boxed)
    with contextlib.closing(connect_to(boxed, one)) as connection:
        body = json.dumps({"model": MODEL, "input": "Hi", "max_output_tokens": 16})
        connection.request("POST", "/v1/responses", body, RIGHT)
        kept = json.loads(connection.getresponse().read())
    with contextlib.closing(connect_to(boxed, other)) as connection:
        path = f"/v1/responses/{kept['id']}"
        connection.request("GET", path, headers=RIGHT)
        assert json.loads(connection.getresponse().read())["output"] == kept["output"]
        # Of another key's it tells nothing.
        connection.request("GET", path, headers=OTHER)
        assert connection.getresponse().status == 404


def test_the_page_and_its_stream_come_through_a_worker(boxed):
    page = boxed.get("/")
    assert page.status == 200
    assert boxed.get("/", **{"if-none-match": page.headers["etag"]}).status == 304
    with contextlib.closing(boxed.connect()) as connection:
        connection.request("GET", "/snapshot/stream", headers=RIGHT)
        with connection.getresponse() as response:
            for _ in range(3):
                assert response.readline() == b"event: snapshot\n"
                told = json.loads(response.readline().removeprefix(b"data: "))
                assert response.readline() == b"\n"
            assert len(told["workers"]) == WORKERS


def test_only_this_user_reaches_the_supervisor(quick):
    folders = [
        path
        for path in Path(tempfile.gettempdir()).glob("headrace-*")
        if (path / "supervisor").is_socket()
    ]
    assert folders
    for folder in folders:
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE((folder / "supervisor").stat().st_mode) == 0o600


# Ends


def test_a_worker_that_is_killed_takes_only_its_own_requests_along(provider, tmp_path):
    with serving(tmp_path, {"backends": [provider.backend()]}) as served:
        victim, other = workers_of(served)
        failures, answers, stop = [], [], threading.Event()

        def ask():
            while not stop.is_set():
                begun = time.monotonic()
                try:
                    answers.append(served.chat(model="free").status)
                except OSError:
                    failures.append(begun)

        provider.hold()
        with contextlib.ExitStack() as stack:
            lost, kept = (
                [
                    begin_stream(stack.enter_context(contextlib.closing(connect_to(served, pid))))
                    for _ in range(5)
                ]
                for pid in (victim, other)
            )
            stack.callback(stop.set)
            stack.callback(provider.release)
            callers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
            for caller in callers:
                caller.start()
            until(lambda: len(answers) > 50)
            before = ended(served)
            os.kill(victim, signal.SIGKILL)
            until(lambda: not is_alive(victim))
            dead = time.monotonic()
            until(lambda: len(workers_of(served)) == WORKERS and victim not in workers_of(served))
            until(lambda: len(json.loads(served.get("/snapshot").body)["workers"]) == WORKERS)
            assert ended(served) >= before
            stop.set()
            for caller in callers:
                caller.join(PATIENCE_S)
            # Who came before it was wholly gone; nobody who came later.
            assert [begun for begun in failures if begun > dead] == []
            assert set(answers) == {200}
            provider.release()
            assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in kept)
            for stream in lost:
                with pytest.raises((OSError, http.client.IncompleteRead)):
                    stream.read()
        new = next(pid for pid in workers_of(served) if pid != other)
        with contextlib.closing(connect_to(served, new)) as connection:
            assert begin_stream(connection).read().endswith(b"data: [DONE]\n\n")
        assert ended(served) >= before + len(kept) + 1
        assert served.metric("vllm:num_requests_running") == 0
        assert f"worker {victim} died" in served.log
        restarts = [w["restarts"] for w in served.get("/snapshot").json["workers"]]
        assert sorted(restarts) == [0, 1]


def test_a_hundred_streams_are_finished_and_newcomers_are_told(provider, tmp_path):
    config = {
        "backends": [provider.backend(max_concurrent_requests=1000)],
        "server": {"drain_timeout_ms": 600_000},
    }
    with serving(tmp_path, config) as served, contextlib.ExitStack() as stack:
        workers = workers_of(served)
        provider.hold()
        streams = [
            begin_stream(stack.enter_context(contextlib.closing(served.connect())))
            for _ in range(100)
        ]
        served.process.send_signal(signal.SIGTERM)
        ready = until(lambda: (r := served.get("/ready")).status == 503 and r)
        assert ready.json["status"] == "draining"
        assert served.chat(model="m").error["code"] == "draining"
        assert served.post("/v1/responses", {"model": "m", "input": "Hi"}).status == 503
        provider.release()
        assert all(stream.read().endswith(b"data: [DONE]\n\n") for stream in streams)
        assert served.process.wait(PATIENCE_S) == 0
        assert not any(map(is_alive, workers))
        assert "Traceback" not in served.log


def test_streams_that_do_not_end_in_time_are_cut(provider, tmp_path):
    config = {"backends": [provider.backend()], "server": {"drain_timeout_ms": 200}}
    with serving(tmp_path, config) as served:
        provider.hold()
        try:
            with contextlib.closing(served.connect()) as connection:
                stream = begin_stream(connection)
                served.process.send_signal(signal.SIGTERM)
                assert served.process.wait(PATIENCE_S) == 0
                got = b""
                with contextlib.suppress(OSError, http.client.IncompleteRead):
                    while line := stream.readline():
                        got += line
                assert b"[DONE]" not in got
        finally:
            provider.release()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_with_nothing_in_flight_all_end_at_once(provider, tmp_path, sig):
    with serving(tmp_path, {"backends": [provider.backend()]}) as served:
        workers = workers_of(served)
        served.process.send_signal(sig)
        assert served.process.wait(PATIENCE_S) == 0
        assert not any(map(is_alive, workers))
        assert "Traceback" not in served.log


def test_a_supervisor_that_is_killed_leaves_no_process(box_model, provider, tmp_path):
    config = {"engine": {"enabled": True, "kv_tokens": 512}, "backends": [provider.backend()]}
    with serving(tmp_path, config) as served:
        served.wait_until_ready()
        engine, workers = served.engine_pid(), workers_of(served)
        provider.hold()
        try:
            with contextlib.closing(served.connect()) as connection:
                begin_stream(connection)
                served.process.kill()
                until(lambda: not any(map(is_alive, [engine, *workers])))
        finally:
            provider.release()


def test_workers_do_not_join_those_of_another_server_on_its_port(quick):
    done = run_headrace("serve", "--port", str(quick.port), "--workers", "2")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{quick.port}" in done.stderr


# Reload


def write(served, config):
    path = served.log_path.with_name("gateway.yaml")
    new = path.with_suffix(".new")
    new.write_text(yaml.safe_dump({**NO_MODEL, **config}))
    new.replace(path)


def hang_up(served):
    before = served.log.count(READ)
    served.process.send_signal(signal.SIGHUP)
    until(lambda: served.log.count(READ) > before)


def test_all_workers_stand_on_the_new_configuration_once_that_is_told(tmp_path):
    with far("one", "two") as (one, two):  # noqa: SIM117  the second needs the first
        with serving(tmp_path, {"backends": [one.backend()]}) as served:
            connections = [connect_to(served, pid) for pid in workers_of(served)]
            write(served, {"backends": [two.backend()], "server": {"api_keys": ["right"]}})
            hang_up(served)
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hi"}]})
            for connection in connections:
                for headers, status in ((RIGHT, 200), (OTHER, 401)):
                    connection.request("POST", "/v1/chat/completions", body, headers)
                    answer = connection.getresponse()
                    assert answer.status == status
                    text = answer.read()
                    assert (b"two m" in text) == (status == 200)
                connection.close()
            served.show_key("right")
            # One that comes later has read the same.
            os.kill(workers_of(served)[0], signal.SIGKILL)
            until(lambda: "has taken the place" in served.log)
            for _ in range(10):
                assert said(served.chat(model="m", headers=RIGHT)) == "two m no key"
            # A wrong one changes nobody.
            write(served, {"backends": [one.backend(requests_per_minute=5)]})
            served.process.send_signal(signal.SIGHUP)
            until(lambda: "everything stays as it was" in served.log)
            assert "requests_per_minute is 5" in served.log
            for _ in range(10):
                assert said(served.chat(model="m", headers=RIGHT)) == "two m no key"


def test_reloads_under_load_lose_and_mix_nothing(tmp_path):
    with far("one", "two") as (one, two):
        configs = [
            {"backends": [each.backend(api_key=f"key-{each.name}", model=f"own-{each.name}")]}
            for each in (one, two)
        ]
        whole = {"one own-one key-one", "two own-two key-two"}
        with serving(tmp_path, configs[0]) as served:
            end = time.monotonic() + 2.0
            texts: list[str] = []

            def ask():
                while time.monotonic() < end:
                    texts.append(said(served.chat(model="m")))

            with ThreadPoolExecutor(6) as pool:
                asking = [pool.submit(ask) for _ in range(6)]
                place = 0
                while time.monotonic() < end:
                    place += 1
                    write(served, configs[place % 2])
                    served.process.send_signal(signal.SIGHUP)
                    time.sleep(0.1)
                for each in asking:
                    each.result(PATIENCE_S)
            assert set(texts) == whole
            assert ended(served) == len(texts)


# Limits


def backend(**settings):
    return load(
        text=yaml.safe_dump({"backends": [{"name": "x", "base_url": "http://h/v1", **settings}]}),
        path=Path("gateway.yaml"),
        environment={"HEADRACE_WORKERS": "3"},
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"requests_per_minute": 600}, "requests_per_minute is 600"),
        ({"tokens_per_minute": 1e6}, "tokens_per_minute is 1e+06"),
        ({"max_concurrent_requests": 3}, "at least 4"),
    ],
)
def test_a_limit_that_workers_cannot_keep_together_is_refused(settings, words):
    with pytest.raises(LLMInvalidRequestError, match=r"backends\[0\]") as refused:
        check_shares(backend(**settings))
    assert words in str(refused.value)


def test_the_shares_of_all_are_the_whole():
    config = backend(max_concurrent_requests=10)
    parts = [Share(place, 4).of(config).backends[0].max_concurrent_requests for place in range(4)]
    assert (sum(parts), min(parts)) == (10, 2)
    assert Share(0, 1).of(config) is config
    check_shares(Config())


def test_a_limit_a_minute_with_workers_is_said_in_one_line(tmp_path):
    path = tmp_path / "gateway.yaml"
    backends = [{"name": "x", "base_url": "http://h/v1", "requests_per_minute": 5}]
    path.write_text(yaml.safe_dump({**NO_MODEL, "backends": backends}))
    done = run_headrace("serve", str(path), "--workers", "2", "--check")
    assert done.returncode == 1
    assert "requests_per_minute is 5" in done.stderr
    assert run_headrace("serve", str(path), "--check").returncode == 0


def test_the_other_faces_are_answered_by_every_worker(boxed):
    asked = {"inputs": "The capital of France is", "parameters": {"max_new_tokens": 4}}
    texts = set()
    for pid in workers_of(boxed):
        with contextlib.closing(connect_to(boxed, pid)) as connection:
            for path, body in (
                ("/generate", asked),
                ("/generate_stream", asked),
                ("/", asked),
                ("/rerank", {"query": "a", "texts": ["b"]}),
                ("/v2/rerank", {"query": "a", "documents": ["b"]}),
                ("/embed", {"inputs": "a"}),
            ):
                headers = {"content-type": "application/json", **RIGHT}
                connection.request("POST", path, json.dumps(body), headers)
                reply = connection.getresponse()
                wire = reply.read().decode()
                if body is asked:
                    assert reply.status == 200, wire
                    last = wire.strip().rpartition("\n")[2].removeprefix("data: ").strip("[]")
                    texts.add(json.loads(last)["generated_text"])
                else:  # nobody here does that, and it is said in the caller's own form
                    assert reply.status >= 400
                    assert ("error_type" in wire) is (path != "/v2/rerank")
            connection.request("GET", "/info", headers=RIGHT)
            assert json.loads(connection.getresponse().read())["model_id"] == MODEL
    assert len(texts) == 1
    assert boxed.post("/generate", asked).status == 401
