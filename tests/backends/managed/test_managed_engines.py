"""The life of an engine's process: started by its first use, watched, started again, ended whole."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from attrs import evolve

from backends.managed.engines import (
    answer,
    in_group,
    is_alive,
    listed,
    managed,
    no_process_left,
    stand_in,
    texts,
    until,
)
from headrace.backends.managed.adapters.command import CommandLine
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError


@pytest.fixture
def state(tmp_path):
    """Where the engines of one test are known; none of their processes is left after it."""
    yield tmp_path / "state"
    assert no_process_left(tmp_path)
    assert listed(tmp_path / "state") == []


def run(test):
    """Run a coroutine function as a test."""
    return asyncio.run(asyncio.wait_for(test, 60.0))


def pid_in(text):
    return int(text.split()[0])


def test_it_starts_with_its_first_use_and_callers_wait_for_one_start(state):
    async def play():
        async with managed(stand_in("--slow-start", "0.2"), state) as engine:
            assert engine.snapshot().state == "stopped"
            assert (await engine.status()).ok
            assert [m.model_id for m in await engine.models()] == ["stand-in-1"]
            answers = await asyncio.gather(*(answer(engine) for _ in range(5)))
            assert len(set(answers)) == 1
            shown = engine.snapshot()
            assert (shown.state, shown.pid, shown.port) == ("ready", pid_in(answers[0]), shown.port)
            assert shown.memory_bytes > 1 << 20
            assert shown.uptime_s >= 0
            assert "--port" in shown.command
        assert engine.snapshot().state == "stopped"
        assert not is_alive(shown.pid)

    run(play())


def test_it_is_asked_for_the_name_under_which_it_lists_its_model(state):
    async def play():
        config = stand_in("--served-model-name", "long", model="/models/long.gguf")
        async with managed(config, state) as engine:
            assert await engine.ensure_running()
            assert [m.model_id for m in await engine.models()] == ["long"]
            assert await answer(engine)

    run(play())


def test_one_whose_program_refuses_its_flags_says_so_with_the_end_of_its_log(state):
    async def play():
        async with managed(stand_in("--bogus"), state) as engine:
            with pytest.raises(LLMUnavailableError) as told:
                await engine.ensure_running()
            for part in ("ended with exit status 2", "arguments: --bogus", str(state)):
                assert part in str(told.value)
            assert engine.snapshot().state == "failed"
            assert "--bogus" in engine.snapshot().error
            assert not (await engine.status()).ok
            # It is not started again for whoever asks at once.
            with pytest.raises(LLMUnavailableError) as again:
                await engine.ensure_running()
            assert again.value.retry_after_s > 0

    run(play())


def test_a_model_that_does_not_exist_is_told_in_the_programs_own_words(state):
    async def play():
        async with managed(stand_in(model="missing-model"), state) as engine:
            with pytest.raises(LLMUnavailableError, match="there is no model 'missing-model'"):
                await answer(engine)

    run(play())


def test_a_program_that_is_not_here_is_named(state):
    config = evolve(stand_in(), command=("no-such-program-at-all", "{model}"))

    async def play():
        async with managed(config, state) as engine:
            with pytest.raises(LLMUnavailableError, match="no program 'no-such-program-at-all'"):
                await engine.ensure_running()

    run(play())


def test_one_that_never_gets_ready_is_ended_when_its_time_is_over(state):
    async def play():
        config = stand_in("--never-ready", startup_timeout_s=1.0)
        async with managed(config, state) as engine:
            with pytest.raises(LLMUnavailableError, match="not ready within 1 s"):
                await engine.ensure_running()
            assert no_process_left(state)

    run(play())


def test_one_that_ignores_sigterm_is_killed_with_all_its_children(state):
    async def play():
        config = stand_in("--ignore-sigterm", "--children", "2", stop_timeout_s=0.1)
        async with managed(config, state) as engine:
            pid = pid_in(await answer(engine))
            assert len(in_group(pid)) == 3
            await engine.stop()
            assert in_group(pid) == []
            assert pid_in(await answer(engine)) != pid

    run(play())


def test_one_that_is_killed_under_load_fails_what_is_in_flight_and_answers_again(state):
    async def one(engine, begun):
        pieces = []
        async for text in texts(engine):
            pieces.append(text)
            begun.release()
        return pieces

    async def play():
        async with managed(stand_in("--piece-s", "0.5", "--children", "1"), state) as engine:
            begun = asyncio.Semaphore(0)
            calls = [asyncio.create_task(one(engine, begun)) for _ in range(6)]
            for _ in calls:
                await begun.acquire()
            pid = engine.snapshot().pid
            os.kill(pid, signal.SIGKILL)
            ends = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(end).__name__ for end in ends} == {"EngineDiedError"}
            assert all(end.transient and end.retry_after_s for end in ends)
            async for text in texts(engine):  # a caller that comes meanwhile waits
                assert text != str(pid)
                break
            assert engine.snapshot().restarts == 1
            assert in_group(pid) == []

    run(play())


def test_one_that_dies_again_and_again_is_started_after_longer_and_longer_waits(state):
    async def play():
        async with managed(stand_in("--crash-after", "1"), state) as engine:
            pids = {pid_in(await answer(engine))}
            until_changed = 0
            while len(pids) < 3 and until_changed < 100:
                try:
                    pids.add(pid_in(await answer(engine)))
                except LLMUnavailableError:
                    until_changed += 1
                    await asyncio.sleep(0.02)
            assert len(pids) == 3
            assert engine.snapshot().restarts >= 2

    run(play())


def test_a_lazy_one_ends_when_it_is_not_used_and_never_while_it_answers(state):
    async def play():
        config = stand_in("--piece-s", "0.2", idle_timeout_s=0.1)
        async with managed(config, state) as engine:
            text = await answer(engine)  # takes longer than it may be idle
            pid = pid_in(text)
            assert text.endswith("on")
            await asyncio.to_thread(until, lambda: not is_alive(pid))
            while engine.snapshot().state != "stopped":
                await asyncio.sleep(0.01)
            assert pid_in(await answer(engine)) != pid

    run(play())


def test_one_that_is_not_lazy_stays(state):
    async def play():
        async with managed(stand_in(idle_timeout_s=0.01, lazy=False), state) as engine:
            pid = pid_in(await answer(engine))
            await asyncio.sleep(0.1)
            assert pid_in(await answer(engine)) == pid

    run(play())


def test_a_caller_that_leaves_while_it_starts_leaves_the_others_waiting(state):
    async def play():
        async with managed(stand_in("--slow-start", "0.3"), state) as engine:
            first = asyncio.create_task(answer(engine))
            second = asyncio.create_task(answer(engine))
            await asyncio.sleep(0.05)
            first.cancel()
            assert await second

    run(play())


def test_a_stop_while_it_starts_ends_it(state):
    async def play():
        async with managed(stand_in("--slow-start", "30"), state) as engine:
            waiting = asyncio.create_task(engine.ensure_running())
            while not engine.snapshot().pid:
                await asyncio.sleep(0.01)
            await engine.stop()
            with pytest.raises(LLMUnavailableError, match="is being stopped"):
                await waiting
            assert no_process_left(state)

    run(play())


def test_fifty_starts_and_stops_leave_no_process(state):
    async def play():
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        seen = set()
        async with managed(stand_in(), state) as engine:
            for _ in range(50):
                seen.add(await engine.ensure_running() and engine.snapshot().pid)
                await engine.stop()
                assert engine.snapshot().state == "stopped"
            assert no_process_left(state)
        assert len(seen) == 50
        # The loop, the transport and the interpreter may keep a few of their own.
        assert len(list(Path("/proc/self/fd").iterdir())) < descriptors + 10

    run(play())


def test_keys_are_in_no_snapshot_error_or_log_line(state, caplog):
    key = "sk-secret-0123456789abcdef"

    async def play():
        from headrace.stores.secret import Secret

        config = stand_in("--api-key", key, api_key=key)
        async with managed(config, state, key=Secret(key)) as engine:
            assert await answer(engine)
            assert key not in repr(engine.snapshot())
            assert "***" in engine.snapshot().command
        broken = stand_in("--bogus", key, api_key=key)
        async with managed(broken, state, key=Secret(key)) as engine:
            with pytest.raises(LLMUnavailableError) as told:
                await answer(engine)
            assert key not in str(told.value)
        assert key not in caplog.text

    run(play())


class _Thief(CommandLine):
    """The first port that it is to start at is taken by somebody else in that moment."""

    def launch(self, config, host, port):
        if not thefts:
            thefts.append(socket.socket())
            thefts[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            thefts[0].bind((host, port))
            thefts[0].listen()
        return super().launch(config, host, port)


thefts: list[socket.socket] = []


def test_a_port_that_is_taken_in_the_last_moment_is_exchanged_for_another(state):
    async def play():
        async with managed(stand_in(), state, adapter=_Thief()) as engine:
            assert await answer(engine)
            assert engine.snapshot().port != thefts[0].getsockname()[1]

    try:
        run(play())
    finally:
        thefts.pop().close()


def test_one_that_serves_another_model_than_it_was_started_for_says_so(state):
    async def play():
        async with managed(stand_in("--served-model-name", "another"), state) as engine:
            with pytest.raises(LLMUnavailableError, match="has a server of 'another', not 'stand"):
                await engine.ensure_running()

    run(play())


class _Stranger(BaseHTTPRequestHandler):
    body = b'{"data": [{"id": "another-model"}]}'

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_):
        pass


@pytest.fixture
def stranger():
    """A server of another model, and its port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Stranger)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_port_that_has_another_model_is_an_error_that_names_it(state, stranger):
    async def play():
        async with managed(stand_in(port=stranger), state) as engine:
            with pytest.raises(LLMInvalidRequestError) as told:
                await engine.ensure_running()
            assert f"port {stranger} has a server of 'another-model'" in str(told.value)
            assert told.value.param == "port"
            # To a caller that is no fault of its own.
            with pytest.raises(LLMUnavailableError, match="another-model"):
                await answer(engine)

    run(play())


def test_a_port_whose_holder_says_nothing_is_an_error_in_bounded_time(state):
    async def play(port):
        async with managed(stand_in(port=port), state) as engine:
            with pytest.raises(LLMInvalidRequestError, match=f"port {port} has something"):
                await engine.ensure_running()

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        run(play(silent.getsockname()[1]))


def test_an_endpoint_that_has_the_model_is_used_and_never_stopped(state, tmp_path):
    async def play():
        async with managed(stand_in(), state) as ours:
            url = await ours.ensure_running()
            pid = ours.snapshot().pid
            theirs = stand_in(endpoint=url, name="theirs")
            async with managed(theirs, tmp_path / "elsewhere") as engine:
                assert pid_in(await answer(engine)) == pid
                assert (engine.snapshot().reused, engine.snapshot().pid) == (True, None)
            assert is_alive(pid)
            at_port = stand_in(port=ours.snapshot().port, name="theirs")
            async with managed(at_port, tmp_path / "elsewhere") as engine:
                assert pid_in(await answer(engine)) == pid
            other = evolve(theirs, model="wanted-model")
            async with managed(other, tmp_path / "elsewhere") as engine:
                with pytest.raises(LLMInvalidRequestError, match="has a server of 'stand-in-1'"):
                    await engine.ensure_running()
            assert is_alive(pid)

    run(play())


def test_a_server_of_somebody_else_that_goes_away_is_looked_for_again(state, tmp_path):
    async def play():
        async with managed(stand_in("--piece-s", "0.3"), state) as theirs:
            await theirs.ensure_running()
            port = theirs.snapshot().port
            async with managed(stand_in(port=port, name="ours"), tmp_path / "ours") as engine:
                pieces = texts(engine)
                assert await anext(pieces)
                await theirs.aclose()
                with pytest.raises(LLMUnavailableError, match="ended while it answered"):
                    await anext(pieces)
                # Nobody is there any more, so one is started at its port.
                assert await answer(engine)
                assert engine.snapshot().port == port

    run(play())


def test_an_endpoint_where_nobody_is_says_so(state):
    async def play():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
            async with managed(stand_in(endpoint=url), state) as engine:
                with pytest.raises(LLMUnavailableError, match="nobody answers at its endpoint"):
                    await engine.ensure_running()

    run(play())
