"""The journal: who may use it, and what becomes of one that is not whole."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.chains.journal import Done, Journal
from headrace.contracts.errors import LLMInvalidRequestError

MANY = 3000


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def value(number: int) -> Done:
    return Done(b'"%d %s"' % (number, b"x" * 100), prompt_tokens=number, price_usd="0.1")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with Journal(tmp_path) as journal:
        for number in range(MANY):
            journal.keep(key(number), value(number))
    return tmp_path


def test_what_was_kept_is_found_at_once_and_by_the_next_process(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        for number in range(MANY):
            journal.keep(key(number), value(number))
            assert journal.find(key(number)) == value(number)
        assert journal.find(key(MANY)) is None
    with Journal(tmp_path) as journal:
        assert [journal.find(key(number)) for number in range(MANY)] == list(
            map(value, range(MANY))
        )


def test_who_holds_it_is_named_to_others(tmp_path: Path) -> None:
    held = (
        "import sys; from pathlib import Path; from headrace.chains.journal import Journal\n"
        "with Journal(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline()
    with pytest.raises(LLMInvalidRequestError, match=rf"another process .* id is {process.pid}\)"):
        Journal(tmp_path)
    process.kill()
    process.communicate()
    Journal(tmp_path).close()


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5000])


def cut_at_a_page(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8192])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\xa5" * 10_000)


def another_database(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (a)")
    connection.close()


@pytest.mark.parametrize("harm", [cut, cut_at_a_page, empty, garbage, another_database])
def test_one_that_is_not_whole_is_refused_and_left_as_it_is(
    written: Path, harm: Callable[[Path], None]
) -> None:
    path = written / "journal.sqlite"
    harm(path)
    with pytest.raises(LLMInvalidRequestError, match=r"is damaged .*or remove it to do everything"):
        Journal(written)
    with pytest.raises(LLMInvalidRequestError, match="is damaged"):
        Journal(written)


def test_one_that_is_damaged_inside_is_told_when_that_is_read(written: Path) -> None:
    path = written / "journal.sqlite"
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xff" * (len(data) - 8192)
    path.write_bytes(data)

    def read_all() -> None:
        with Journal(written) as journal:
            for number in range(MANY):
                journal.find(key(number))

    with pytest.raises(LLMInvalidRequestError, match="is damaged"):
        read_all()


def test_a_log_without_its_journal_is_refused(written: Path) -> None:
    (written / "journal.sqlite").rename(written / "journal.sqlite-wal")
    with pytest.raises(LLMInvalidRequestError, match="bring it back"):
        Journal(written)


def test_one_of_a_later_version_is_refused_and_one_of_an_earlier_goes_on(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    # As format 1 was made.
    connection.execute(
        "CREATE TABLE done (key BLOB PRIMARY KEY, value BLOB NOT NULL, failed INTEGER NOT NULL, "
        "prompt_tokens INTEGER NOT NULL, completion_tokens INTEGER NOT NULL, price_usd TEXT) "
        "WITHOUT ROWID"
    )
    connection.execute("PRAGMA user_version = 1")
    connection.execute("INSERT INTO done VALUES (?, ?, 0, 1, 2, NULL)", (key(1), b'"one"'))
    connection.commit()
    connection.close()
    with Journal(tmp_path) as journal:
        journal.keep(key(2), value(2))
        assert journal.find(key(1)) == Done(b'"one"', prompt_tokens=1, completion_tokens=2)
    with Journal(tmp_path) as journal:
        assert journal.find(key(2)) == value(2)
    connection = sqlite3.connect(tmp_path / "journal.sqlite")
    connection.execute("PRAGMA application_id = 1752327016")
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(LLMInvalidRequestError, match="has format 9, must be 2"):
        Journal(tmp_path)
