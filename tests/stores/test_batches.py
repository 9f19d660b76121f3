"""Batches on disk: nothing is written twice, nothing is lost, and one process has the folder."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from attrs import evolve

from headrace.contracts.batches import Batch, BatchProblem, KeptFile
from headrace.contracts.errors import LLMUnavailableError
from headrace.contracts.responses import Usage
from headrace.stores.batches import BatchStore
from headrace.stores.batches.shelf import StoredBatch, StoredItem

NOW = 1_700_000_000.0


def batch(batch_id: str = "b1", **changes: object) -> StoredBatch:
    made = Batch(batch_id=batch_id, phase="validating", created=NOW, expires=NOW + 60)
    return StoredBatch(owner="me", face="openai", batch=evolve(made, **changes))


def items(count: int) -> list[StoredItem]:
    return [
        StoredItem(place=i, custom_id=f"r{i}", source="file-1", start=i * 10, length=10)
        for i in range(count)
    ]


def kept(store: BatchStore, file_id: str, text: bytes = b"x", **changes: object) -> KeptFile:
    with store.files.begin(file_id) as file:
        file.write(text)
    about = KeptFile(file_id=file_id, name="n", purpose="batch", size=len(text), created=int(NOW))
    about = evolve(about, **changes)
    store.files.add("me", about)
    return about


def test_a_batch_is_found_as_it_was_left(tmp_path: Path) -> None:
    with BatchStore(tmp_path / "b") as store:
        store.batches.add(batch(metadata={"a": "b"}, input_files=("file-1",)))
        assert store.batches.begin("b1", items(3), NOW + 1, "m")
        usage = Usage(prompt_tokens=2, completion_tokens=3)
        store.batches.settle("b1", [(1, "succeeded", b"line 1", usage)])
    with BatchStore(tmp_path / "b") as store:
        (found,) = store.batches.unfinished()
        assert (found.batch.phase, found.batch.model) == ("in_progress", "m")
        assert found.batch.metadata == {"a": "b"}
        assert (found.batch.counts.total, found.batch.counts.succeeded) == (3, 1)
        assert found.batch.usage is not None
        assert found.batch.usage.total_tokens == 5
        assert [each.place for each in store.batches.open_items("b1", -1, 10)] == [0, 2]
        assert [each.place for each in store.batches.open_items("b1", 0, 10)] == [2]


def test_the_first_result_of_a_request_is_the_only_one(tmp_path: Path) -> None:
    with BatchStore(tmp_path) as store:
        store.batches.add(batch())
        store.batches.begin("b1", items(2), NOW, None)
        store.batches.settle("b1", [(0, "succeeded", b"first", None)])
        store.batches.settle("b1", [(0, "errored", b"second", None), (1, "errored", b"b", None)])
        assert [*store.batches.results("b1")] == [("succeeded", b"first"), ("errored", b"b")]
        counts = store.batches.list("me", "openai")[0].batch.counts
        assert (counts.succeeded, counts.errored, counts.open) == (1, 1, 0)


def test_a_batch_that_was_cancelled_is_not_begun(tmp_path: Path) -> None:
    with BatchStore(tmp_path) as store:
        store.batches.add(batch())
        store.batches.cancel("b1", NOW)
        assert not store.batches.begin("b1", items(2), NOW, None)
        store.batches.fail("b1", [BatchProblem(message="no")], NOW)
        found = store.batches.find("b1")
        assert found is not None
        assert (found.batch.phase, found.batch.counts.total) == ("cancelling", 0)


def test_another_process_is_told_whose_the_folder_is(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        from headrace.stores.batches import BatchStore
        with BatchStore(Path(sys.argv[1])):
            print("has it", flush=True)
            sys.stdin.read()
    """
    other = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "has it\n"
        with pytest.raises(LLMUnavailableError) as refused:
            BatchStore(tmp_path)
        assert refused.value.code == "batches_elsewhere"
        assert str(tmp_path) in str(refused.value)
        other.kill()
    BatchStore(tmp_path).close()


def test_what_a_crash_left_behind_is_removed(tmp_path: Path) -> None:
    with BatchStore(tmp_path) as store:
        kept(store, "file-1")
        with store.files.begin("file-2") as file:
            file.write(b"half")
        with store.files.begin("file-3") as file:
            file.write(b"no row")
        store.files.place_begun("file-3")
    with BatchStore(tmp_path) as store:
        assert store.files.path("file-1").read_bytes() == b"x"
        assert [each.name for each in (tmp_path / "files").iterdir()] == ["file-1"]
        assert not [*(tmp_path / "incoming").iterdir()]


def test_files_are_their_owners_until_their_time_is_over(tmp_path: Path) -> None:
    with BatchStore(tmp_path) as store:
        first = kept(store, "file-1", expires=int(NOW) + 10)
        second = kept(store, "file-2", created=int(NOW) + 1)
        assert store.files.list("me", NOW) == [second, first]
        assert store.files.list("me", NOW, order="asc") == [first, second]
        assert not store.files.list("you", NOW)
        assert store.files.find("you", "file-1", NOW) is None
        assert store.files.find("me", "file-1", NOW + 10) is None
        assert store.files.expired(NOW + 10) == ["file-1"]
        assert store.files.total_bytes() == 2
        store.files.delete("file-1")
        assert not store.files.path("file-1").exists()


def test_nobody_else_on_the_machine_can_read_them(tmp_path: Path) -> None:
    with BatchStore(tmp_path / "b") as store:
        kept(store, "file-1")
        modes = {
            path.stat().st_mode & 0o077
            for path in (tmp_path / "b").rglob("*")
            if path.suffix not in (".sqlite-wal", ".sqlite-shm")
        }
        assert modes == {0}


def test_what_another_version_has_kept_is_left_alone(tmp_path: Path) -> None:
    import sqlite3

    BatchStore(tmp_path).close()
    with sqlite3.connect(tmp_path / "batches.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(LLMUnavailableError, match="another version"):
        BatchStore(tmp_path)
    with sqlite3.connect(tmp_path / "batches.sqlite") as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    connection.close()
