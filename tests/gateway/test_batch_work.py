"""The work on a batch, at hours that are not waited for: expiry, back-off, keys that are taken away."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from starlette.types import Receive, Scope, Send

from headrace.contracts.batches import Batch, KeptFile
from headrace.gateway.batches.home import Home
from headrace.gateway.batches.work import Work
from headrace.gateway.batches_config import BatchesConfig
from headrace.net.scripted import ManualClock
from headrace.stores.batches import BatchStore
from headrace.stores.batches.shelf import StoredBatch

CHAT = "/v1/chat/completions"


@define(slots=False)
class Scene:
    """A batch of one file, and an application that answers as ``answers`` says, by a text."""

    folder: Path
    answers: Callable[[str, int], int | None]
    clock: ManualClock = field(factory=ManualClock)
    asked: list[str] = field(factory=list)
    allowed: bool = True
    stopping: bool = False
    padding: str = ""

    def __attrs_post_init__(self) -> None:
        self.home = Home(str(self.folder))
        self.work = Work(
            home=self.home,
            application=self.application,
            settings=BatchesConfig(max_tries=3),
            clock=self.clock,
            may_run=lambda _: self.allowed,
            stops=lambda: self.stopping,
        )

    async def application(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = json.loads((await receive())["body"])
        text = body["messages"][0]["content"]
        self.asked.append(text)
        status = self.answers(text, self.asked.count(text))
        if status is None:
            await asyncio.Event().wait()
        headers = [(b"retry-after-ms", b"30000")] if status == 429 else []
        start = {"type": "http.response.start", "status": status, "headers": headers}
        await send(start)
        usage = {"prompt_tokens": 1, "completion_tokens": 1}
        answer = json.dumps({"usage": usage, "padding": self.padding}, indent=2)
        await send({"type": "http.response.body", "body": answer.encode()})

    async def begin(self, *texts: str, window_s: int = 24 * 3600) -> None:
        now = self.clock.wall()
        lines = [
            json.dumps(
                {
                    "custom_id": text,
                    "method": "POST",
                    "url": CHAT,
                    "body": {"messages": [{"role": "user", "content": text}]},
                }
            )
            for text in texts
        ]
        made = Batch(
            batch_id="batch_1",
            phase="validating",
            created=now,
            expires=now + window_s,
            endpoint=CHAT,
            input_files=("file-1",),
        )

        def keep(store: BatchStore) -> None:
            with store.files.begin("file-1") as file:
                file.write("\r\n".join(["", *lines, "  "]).encode())
            about = KeptFile(file_id="file-1", name="in", purpose="batch", size=1, created=int(now))
            store.files.add("", about)
            store.batches.add(StoredBatch(owner="", face="openai", batch=made))

        await self.home.do(keep)
        self.work.take("batch_1")

    async def batch(self) -> Batch:
        found = await self.home.do(lambda store: store.batches.find("batch_1"))
        assert found is not None
        return found.batch

    async def until(self, what: Callable[[Batch], bool], *, step_s: float = 0.0) -> Batch:
        """How the batch stands once that is so; the clock goes on by ``step_s`` at each look."""
        for _ in range(3000):
            found = await self.batch()
            if what(found):
                return found
            if step_s:
                await self.clock.advance(step_s)
            await asyncio.sleep(0.005)
        raise AssertionError(found)

    async def lines(self, name: str | None) -> dict[str, Any]:
        if name is None:
            return {}
        text = await self.home.do(lambda store: store.files.path(name).read_text())
        found = [json.loads(line) for line in text.splitlines()]
        return {each["custom_id"]: each for each in found}


def play(scene: Scene, story: Callable[[Scene], Awaitable[None]]) -> None:
    async def main() -> None:
        try:
            await story(scene)
        finally:
            await scene.work.aclose()
            await scene.home.aclose()

    asyncio.run(main())


def test_a_batch_that_is_too_late_keeps_what_it_has(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.begin("quick", "slow", "slow too", window_s=600)
        await scene.until(lambda batch: batch.counts.succeeded == 1)
        await scene.clock.advance(601)
        batch = await scene.until(lambda batch: batch.has_ended)
        assert batch.phase == "expired"
        assert (batch.counts.succeeded, batch.counts.expired) == (1, 2)
        assert [*await scene.lines(batch.output_file)] == ["quick"]
        errors = await scene.lines(batch.error_file)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}

    play(Scene(tmp_path, lambda text, _: 200 if text == "quick" else None), story)


def test_who_is_busy_is_asked_again_after_as_long_as_it_said(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.begin("a")
        while not scene.asked:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        await scene.clock.advance(29)
        assert scene.asked == ["a"]
        batch = await scene.until(lambda batch: batch.has_ended, step_s=1)
        assert scene.asked == ["a", "a"]
        assert batch.counts.succeeded == 1

    play(Scene(tmp_path, lambda _, times: 429 if times == 1 else 200), story)


def test_who_is_gone_for_good_makes_an_error_of_a_request(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        await scene.begin("gone", "here")
        batch = await scene.until(lambda batch: batch.has_ended, step_s=5)
        assert scene.asked.count("gone") == 3
        assert (batch.phase, batch.counts.errored, batch.counts.succeeded) == ("completed", 1, 1)
        (error,) = (await scene.lines(batch.error_file)).values()
        assert error["response"]["status_code"] == 503

    play(Scene(tmp_path, lambda text, _: 503 if text == "gone" else 200), story)


def test_nothing_is_asked_for_a_key_that_was_taken_away(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        scene.allowed = False
        await scene.begin("a")
        await scene.until(lambda batch: batch.phase == "in_progress")
        await asyncio.sleep(0.05)
        await scene.clock.advance(10)
        assert not scene.asked
        scene.allowed = True
        await scene.until(lambda batch: batch.has_ended, step_s=1)
        assert scene.asked == ["a"]

    play(Scene(tmp_path, lambda *_: 200), story)


def test_what_a_stopping_gateway_refuses_is_no_error_of_the_batch(tmp_path: Path) -> None:
    def stop(*_: object) -> int:
        first.stopping = True
        return 503

    async def story(scene: Scene) -> None:
        await scene.begin("a", "b")
        while not scene.asked:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.05)
        assert (await scene.batch()).counts.open == 2

    first = Scene(tmp_path, stop)
    play(first, story)

    async def later(scene: Scene) -> None:
        scene.work.go_on_with(["batch_1"])
        batch = await scene.until(lambda batch: batch.has_ended)
        assert batch.counts.succeeded == 2
        found = await scene.lines(batch.output_file)
        # An answer of several lines is one line.
        assert found["a"]["response"]["body"]["usage"]["prompt_tokens"] == 1

    play(Scene(tmp_path, lambda *_: 200), later)


def test_a_full_disk_loses_no_answer(tmp_path: Path) -> None:
    def limit(store: BatchStore, more_pages: int) -> None:
        connection = store.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + more_pages}")

    async def story(scene: Scene) -> None:
        scene.allowed = False
        await scene.begin("a")
        await scene.until(lambda batch: batch.phase == "in_progress")
        await scene.home.do(lambda store: limit(store, 0))
        scene.allowed = True
        while not scene.asked:
            await scene.clock.advance(1)
            await asyncio.sleep(0.005)
        for _ in range(20):
            await scene.clock.advance(1)
            await asyncio.sleep(0.005)
        assert (await scene.batch()).counts.open == 1
        await scene.home.do(lambda store: limit(store, 1000))
        batch = await scene.until(lambda batch: batch.has_ended, step_s=1)
        assert batch.counts.succeeded == 1
        assert scene.asked == ["a"]

    play(Scene(tmp_path, lambda *_: 200, padding="x" * 100_000), story)
