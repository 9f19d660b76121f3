"""Processes that set up the same engine share it; what a killed one leaves behind is ended."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from backends.managed.engines import (
    answer,
    is_alive,
    listed,
    managed,
    no_process_left,
    stand_in,
    until,
)
from headrace.backends.managed.ending import end_orphans, stop_started
from headrace.backends.managed.state import folder_of, folders
from headrace.contracts.convert import to_json
from headrace.contracts.errors import LLMUnavailableError

USER = Path(__file__).parent / "user.py"


@pytest.fixture
def state(tmp_path):
    """Where the engines of one test are known; none of their processes is left after it."""
    yield tmp_path
    assert no_process_left(tmp_path)
    assert listed(tmp_path) == []


@contextlib.contextmanager
def user(state, *flags, how="ask"):
    """Another process that uses the engine; with the block's end its own comes."""
    process = subprocess.Popen(
        [sys.executable, str(USER), str(state), how, *flags],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def engine_of(process):
    return int(process.stdout.readline())


def test_two_that_start_at_once_have_one_and_the_last_to_leave_ends_it(state):
    with user(state) as first:
        with user(state) as second:
            pid = engine_of(first)
            assert engine_of(second) == pid
        assert is_alive(pid)
        assert folder_of(stand_in(), state).read().is_wanted
    until(lambda: not is_alive(pid))


def test_one_that_was_killed_does_not_count_and_the_other_is_served_on(state):
    async def play(pid):
        async with managed(stand_in(), state) as engine:
            assert int((await answer(engine)).split()[0]) == pid
            first.kill()
            first.wait()
            assert int((await answer(engine)).split()[0]) == pid
            assert is_alive(pid)
        assert not is_alive(pid)

    with user(state) as first:
        asyncio.run(play(engine_of(first)))


def test_what_a_killed_process_left_behind_is_ended_when_any_engine_starts(state):
    async def play():
        async with managed(stand_in(name="another"), state) as engine:
            await engine.ensure_running()
            assert not is_alive(pid)

    with user(state, "--children", "1") as killed:
        pid = engine_of(killed)
        killed.kill()
        killed.wait()
        assert is_alive(pid)
        asyncio.run(play())


def test_one_that_was_started_to_stay_stays_until_it_is_told_to_stop(state):
    with user(state, how="keep") as starter:
        pid = engine_of(starter)
    assert is_alive(pid)
    asyncio.run(end_orphans(state))
    assert is_alive(pid)
    (folder, started), *others = folders(state)
    assert (started.name, started.pid, started.kept, others) == ("standing", pid, True, [])
    assert asyncio.run(stop_started(folder))
    assert not is_alive(pid)
    assert not asyncio.run(stop_started(folder))


def test_a_process_that_has_an_engines_old_id_is_left_alone(state):
    with user(state) as killed:
        pid = engine_of(killed)
        killed.kill()
        killed.wait()
    folder = folder_of(stand_in(), state)
    started = folder.read()
    bystander = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        # As if the system had given the id of the engine, long dead, to somebody else.
        asyncio.run(stop_started(folder))
        said = to_json(started).replace(str(pid).encode(), str(bystander.pid).encode(), 1)
        assert said != to_json(started)
        (folder.path / "engine.json").write_bytes(said)
        asyncio.run(end_orphans(state))
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_engines_that_are_set_up_otherwise_are_not_shared(state):
    async def play():
        alike, otherwise = stand_in(), stand_in("--pieces", "1")
        async with managed(alike, state) as one, managed(otherwise, state) as other:
            assert (await answer(one)).split()[0] != (await answer(other)).split()[0]

    asyncio.run(play())


def test_an_entry_that_finds_another_ones_engine_at_its_port_uses_it_too(state):
    async def play(pid):
        port = folder_of(stand_in(), state).read().port
        async with managed(stand_in(name="another", port=port), state) as engine:
            assert int((await answer(engine)).split()[0]) == pid
            first.stdin.close()
            first.wait()
            assert int((await answer(engine)).split()[0]) == pid
        assert not is_alive(pid)

    with user(state) as first:
        asyncio.run(play(engine_of(first)))


def test_logs_of_earlier_starts_are_kept(state):
    async def play():
        async with managed(stand_in(), state) as engine:
            for _ in range(2):
                await engine.ensure_running()
                await engine.stop()

    asyncio.run(play())
    folder = folder_of(stand_in(), state)
    for name in ("log", "log.1"):
        assert "loading stand-in-1" in (folder.path / name).read_text()
    assert (folder.path / "log").stat().st_mode & 0o077 == 0


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "engines").touch()

    async def play():
        async with managed(stand_in(), tmp_path) as engine:
            with pytest.raises(LLMUnavailableError, match="HEADRACE_STATE"):
                await engine.ensure_running()

    asyncio.run(play())
