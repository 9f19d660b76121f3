"""Profiles on demand, with a stand-in for the run: a small program that does what its input says."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from headrace.bench.profile.folders import RunFolder
from headrace.bench.profile.service import Profiles
from headrace.contracts.errors import LLMInvalidRequestError, LLMRateLimitError
from headrace.contracts.profiling import LLMProfileRequest, ProfileStatus

PATIENCE_S = 60.0
# It does what the file "script" in its input directory says, a word a line, and waits for files.
STAND_IN = """
import json, os, pathlib, signal, sys, time
run = pathlib.Path(sys.argv[1])
asked = json.loads((run / "request.json").read_text())
inputs = pathlib.Path(asked["request"]["input_dir"])

def tell(state, **more):
    said = {"run_id": asked["run_id"], "state": state, "artifacts_dir": str(run), **more}
    beside = run / ".status"
    beside.write_text(json.dumps(said))
    beside.rename(run / "status.json")

for word in (inputs / "script").read_text().split():
    if word == "partly":
        tell("running", phase="timing", progress=0.5)
        (run / "trace.json.gz").write_bytes(b"half")
    elif word == "wait":
        while not (inputs / "go").exists():
            time.sleep(0.01)
    elif word == "polite":
        def stop(*_):
            tell("cancelled")
            sys.exit(1)
        signal.signal(signal.SIGTERM, stop)
    elif word == "deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif word == "crash":
        print("line one of the log")
        print("Segmentation fault, say")
        sys.exit(3)
    elif word == "done":
        (run / "report.json").write_text("{}")
        (run / "SHA256SUMS").write_text("ab" * 32 + "  report.json\\n")
        tell("done", progress=1.0)
"""


class Place:
    """A folder with inputs, a program, and services over it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.program = folder / "stand_in.py"
        self.program.write_text(STAND_IN)

    def request(self, name: str, script: str, **more: Any) -> LLMProfileRequest:
        inputs = self.folder / name
        inputs.mkdir(exist_ok=True)
        model = self.folder / "model"
        model.mkdir(exist_ok=True)
        (inputs / "script").write_text(script)
        request = LLMProfileRequest(model_path=str(model), input_dir=str(inputs), device="cpu")
        return evolve(request, **more)

    def go(self, name: str) -> None:
        (self.folder / name / "go").touch()

    def service(self, **more: Any) -> Profiles:
        program = (sys.executable, "-S", str(self.program))
        return Profiles(self.runs, [self.folder], program=program, **more)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


async def until(
    service: Profiles, run_id: str, met: Callable[[ProfileStatus], bool]
) -> ProfileStatus:
    end = time.monotonic() + PATIENCE_S
    while not met(status := await service.status(run_id)):
        assert time.monotonic() < end, status
        await asyncio.sleep(0.02)
    return status


def is_in(*states: str) -> Callable[[ProfileStatus], bool]:
    return lambda status: status.state in states


def test_a_run_goes_from_asked_to_done(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            accepted = await service.submit(place.request("a", "partly wait done"))
            assert accepted.status == "running"
            half = await until(service, accepted.run_id, lambda s: s.progress == 0.5)
            assert (half.state, half.phase, half.device) == ("running", "timing", "cpu")
            place.go("a")
            done = await until(service, accepted.run_id, is_in("done"))
            assert (done.progress, done.error) == (1.0, None)
            assert done.artifacts_dir == accepted.artifacts_dir == str(place.runs / done.run_id)
            found = {a.name: a for a in await service.artifacts(accepted.run_id)}
            assert found["report.json"].sha256 == "ab" * 32
            assert found["report.json"].size_bytes == 2
            assert "log.txt" in found
            assert "status.json" not in found
            assert "lock" not in found

    run(work())


def test_a_device_does_one_thing_at_a_time_and_the_first_asked_is_the_first_begun(
    place: Place,
) -> None:
    async def work() -> None:
        async with place.service() as service:
            first, second, third = [
                await service.submit(place.request(name, "wait done")) for name in "abc"
            ]
            elsewhere = await service.submit(place.request("d", "wait done", device="cuda:1"))
            assert (first.status, second.status, third.status) == ("running", "queued", "queued")
            assert elsewhere.status == "running"
            place.go("a")
            await until(service, second.run_id, is_in("running"))
            assert (await service.status(first.run_id)).state == "done"
            assert (await service.status(third.run_id)).state == "queued"
            listed = [status.run_id for status in await service.list()]
            assert set(listed[-1:]) <= {first.run_id}
            assert len(listed) == 4
            for name in "bcd":
                place.go(name)
            await until(service, third.run_id, is_in("done"))

    run(work())


def test_cuda_without_a_number_is_the_first_gpu(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            first = await service.submit(place.request("a", "wait done", device="cuda"))
            second = await service.submit(place.request("b", "done", device="cuda:0"))
            assert (first.status, second.status) == ("running", "queued")
            place.go("a")
            await until(service, second.run_id, is_in("done"))

    run(work())


def test_a_run_goes_on_while_no_service_is_there_and_the_next_one_follows_it(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            running = await service.submit(place.request("a", "partly wait done"))
            waiting = await service.submit(place.request("b", "done"))
            await until(service, running.run_id, lambda s: s.progress == 0.5)
        async with place.service() as service:
            assert (await service.status(running.run_id)).state == "running"
            assert (await service.status(waiting.run_id)).state == "queued"
            place.go("a")
            await until(service, running.run_id, is_in("done"))
            await until(service, waiting.run_id, is_in("done"))

    run(work())


def test_a_run_that_ended_while_no_service_was_there_is_found_as_it_ended(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            accepted = await service.submit(place.request("a", "wait done"))
        place.go("a")
        folder = RunFolder(place.runs / accepted.run_id)
        while folder.is_running():
            await asyncio.sleep(0.02)
        async with place.service() as service:
            assert (await service.status(accepted.run_id)).state == "done"

    run(work())


@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_dies_is_told_as_failed_with_the_end_of_its_log(
    place: Place, restarted: bool
) -> None:
    async def work() -> None:
        async with place.service() as service:
            accepted = await service.submit(place.request("a", "partly crash"))
            if not restarted:
                await until(service, accepted.run_id, is_in("failed"))
        folder = RunFolder(place.runs / accepted.run_id)
        while folder.is_running():
            await asyncio.sleep(0.02)
        async with place.service() as service:
            failed = await until(service, accepted.run_id, is_in("failed"))
            assert failed.error is not None
            assert failed.error.endswith("line one of the log\nSegmentation fault, say")
            # How far it came is kept, and so is what it has written, marked.
            assert (failed.progress, failed.phase) == (0.5, "timing")
            end = time.monotonic() + PATIENCE_S
            while "INCOMPLETE.txt" not in (names := await _names(service, accepted.run_id)):
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
            assert "trace.json.gz" in names

    run(work())


async def _names(service: Profiles, run_id: str) -> set[str]:
    return {artifact.name for artifact in await service.artifacts(run_id)}


def test_a_killed_run_is_failed_and_makes_room_for_the_next(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            first = await service.submit(place.request("a", "partly wait"))
            second = await service.submit(place.request("b", "done"))
            await until(service, first.run_id, lambda s: s.progress == 0.5)
            pid = json.loads((Path(first.artifacts_dir) / "pid.json").read_text())["pid"]
            os.kill(pid, signal.SIGKILL)
            await until(service, first.run_id, is_in("failed"))
            await until(service, second.run_id, is_in("done"))

    run(work())


@pytest.mark.parametrize("manners", ["polite", "", "deaf"])
def test_a_cancelled_run_ends_whatever_its_manners(place: Place, manners: str) -> None:
    async def work() -> None:
        async with place.service(patience_s=0.5 if manners == "deaf" else PATIENCE_S) as service:
            accepted = await service.submit(place.request("a", f"{manners} partly wait"))
            await until(service, accepted.run_id, lambda s: s.progress == 0.5)
            told = await service.cancel(accepted.run_id)
            assert told.state in ("running", "cancelled")
            cancelled = await until(service, accepted.run_id, is_in("cancelled"))
            assert cancelled.error is None
            # It tells its end, and then ends.
            over = time.monotonic() + PATIENCE_S
            while RunFolder(Path(accepted.artifacts_dir)).is_running():
                assert time.monotonic() < over
                await asyncio.sleep(0.01)
            assert "trace.json.gz" in await _names(service, accepted.run_id)
            assert (await service.cancel(accepted.run_id)).state == "cancelled"

    run(work())


def test_a_run_that_waits_is_cancelled_without_ever_being_begun(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            first = await service.submit(place.request("a", "wait done"))
            second = await service.submit(place.request("b", "done"))
            assert (await service.cancel(second.run_id)).state == "cancelled"
            place.go("a")
            await until(service, first.run_id, is_in("done"))
            await asyncio.sleep(0.5)
            assert (await service.status(second.run_id)).state == "cancelled"
            assert not (Path(second.artifacts_dir) / "log.txt").exists()

    run(work())


def test_a_run_that_is_done_stays_done_when_it_is_cancelled(place: Place) -> None:
    async def work() -> None:
        async with place.service() as service:
            accepted = await service.submit(place.request("a", "done"))
            await until(service, accepted.run_id, is_in("done"))
            assert (await service.cancel(accepted.run_id)).state == "done"

    run(work())


def test_a_cancel_outlives_the_service_that_was_asked(place: Place) -> None:
    async def work() -> None:
        async with place.service(patience_s=PATIENCE_S) as service:
            accepted = await service.submit(place.request("a", "deaf partly wait"))
            await until(service, accepted.run_id, lambda s: s.progress == 0.5)
            await service.cancel(accepted.run_id)
        async with place.service(patience_s=0.2) as service:
            await until(service, accepted.run_id, is_in("cancelled"))

    run(work())


def test_two_services_over_one_folder_begin_each_run_once(place: Place) -> None:
    async def work() -> None:
        async with place.service() as one, place.service() as other:
            first = await one.submit(place.request("a", "wait done"))
            second = await other.submit(place.request("b", "wait done"))
            await until(other, first.run_id, is_in("running"))
            place.go("a")
            await until(other, second.run_id, is_in("running"))
            assert (await other.cancel(second.run_id)).state in ("running", "cancelled")
            await until(one, second.run_id, is_in("cancelled"))

    run(work())


def test_old_runs_are_removed_and_those_that_wait_or_run_are_not(place: Place) -> None:
    async def work() -> None:
        async with place.service(keep=2) as service:
            ended = []
            for n in range(4):
                accepted = await service.submit(place.request(f"x{n}", "done"))
                await until(service, accepted.run_id, is_in("done"))
                ended.append(accepted.run_id)
            running = await service.submit(place.request("r", "wait"))
            end = time.monotonic() + PATIENCE_S
            while len(await service.list()) > 3:
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
            assert {s.run_id for s in await service.list()} >= {running.run_id, ended[-1]}
            with pytest.raises(LLMInvalidRequestError) as gone:
                await service.status(ended[0])
            assert gone.value.status == 404
            await service.cancel(running.run_id)
            await until(service, running.run_id, is_in("cancelled"))

    run(work())


def test_more_than_may_wait_are_told_to_come_again(place: Place) -> None:
    async def work() -> None:
        async with place.service(most_waiting=1) as service:
            first = await service.submit(place.request("a", "wait done"))
            await service.submit(place.request("b", "done"))
            with pytest.raises(LLMRateLimitError, match=r"1 profiles wait already") as full:
                await service.submit(place.request("c", "done"))
            assert full.value.retry_after_s
            place.go("a")
            await until(service, first.run_id, is_in("done"))

    run(work())


def test_a_program_that_cannot_be_started_is_a_failed_run(place: Place) -> None:
    async def work() -> None:
        service = Profiles(place.runs, [place.folder], program=[str(place.folder / "nothing")])
        async with service:
            accepted = await service.submit(place.request("a", ""))
            failed = await until(service, accepted.run_id, is_in("failed"))
            assert "its process cannot be started" in (failed.error or "")

    run(work())


@pytest.mark.parametrize("name", ["../runs", "..", ".starter", "a/b", "", "x" * 100, "nothing"])
def test_no_name_leads_out_of_the_folder(place: Place, name: str) -> None:
    async def work() -> None:
        async with place.service() as service:
            for ask in (service.status, service.cancel, service.artifacts):
                with pytest.raises(LLMInvalidRequestError, match="there is no profile") as unknown:
                    await ask(name)
                assert unknown.value.status == 404

    run(work())


@pytest.mark.parametrize(
    ("change", "param", "said"),
    [
        ({"model_path": "/etc"}, "model_path", "does not lie under"),
        ({"model_path": "{folder}/../.."}, "model_path", "does not lie under"),
        ({"model_path": "{folder}/link"}, "model_path", "does not lie under"),
        ({"model_path": "{folder}/with-link"}, "model_path", "does not lie under"),
        ({"model_path": "{folder}/nothing"}, "model_path", "there is nothing"),
        ({"model_path": "/nothing/there"}, "model_path", "does not lie under"),
        ({"input_dir": "/etc"}, "input_dir", "does not lie under"),
        ({"input_dir": "{folder}/stand_in.py"}, "input_dir", "no directory"),
        ({"device": "gpu"}, "device", "cpu, cuda or cuda:N"),
        ({"dtype": "int3"}, "dtype", "bf16, fp16, fp32"),
        ({"attention": "somebody/kernels"}, "attention", "eager, sdpa"),
        ({"trust_remote_code": True}, "trust_remote_code", "profiles.allow_remote_code"),
    ],
)
def test_what_may_not_be_read_or_run_is_refused_by_its_field(
    place: Place, change: dict[str, Any], param: str, said: str
) -> None:
    (place.folder / "link").symlink_to("/etc")
    (place.folder / "with-link").mkdir()
    (place.folder / "with-link" / "weights").symlink_to("/etc/passwd")
    made = {
        name: value.format(folder=place.folder) if isinstance(value, str) else value
        for name, value in change.items()
    }

    async def work() -> None:
        async with place.service() as service:
            with pytest.raises(LLMInvalidRequestError, match=said) as refused:
                await service.submit(place.request("a", "done", **made))
            assert refused.value.param == param
            assert await service.list() == ()

    run(work())


def test_links_within_the_roots_are_followed(place: Place) -> None:
    (place.folder / "blobs").mkdir()
    (place.folder / "blobs" / "1").touch()
    (place.folder / "snapshot").mkdir()
    (place.folder / "snapshot" / "weights").symlink_to("../blobs/1")

    async def work() -> None:
        async with place.service() as service:
            request = place.request("a", "done", model_path=str(place.folder / "snapshot"))
            accepted = await service.submit(request)
            await until(service, accepted.run_id, is_in("done"))

    run(work())
