"""Frames between our own processes: whole messages out of bytes however they are cut."""

from __future__ import annotations

import asyncio
import stat
import threading
from pathlib import Path

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from headrace.net.frames import (
    FrameError,
    FrameLink,
    FrameReader,
    PrivateFolder,
    listen,
    write_frame,
)


class Said(Struct, array_like=True, tag="said"):
    number: int
    words: list[str]
    raw: bytes


messages = st.builds(
    Said,
    number=st.integers(-(2**63), 2**64 - 1),
    words=st.lists(st.text(max_size=20), max_size=5),
    raw=st.binary(max_size=300),
)


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, "\ud800", {"a": [2**70]}])
def test_what_no_message_can_say_is_told_as_such(value):
    with pytest.raises(FrameError, match="cannot be written"):
        write_frame([value])


@given(sent=st.lists(messages, max_size=8), cuts=st.lists(st.integers(1, 64), min_size=1))
def test_messages_survive_any_chopping(sent: list[Said], cuts: list[int]) -> None:
    data = b"".join(map(write_frame, sent))
    reader = FrameReader[Said](Said)
    read: list[Said] = []
    place = turn = 0
    while place < len(data):
        size = cuts[turn % len(cuts)]
        read += reader.feed(data[place : place + size])
        place, turn = place + size, turn + 1
    assert read == sent


@given(data=st.binary(max_size=200))
def test_any_other_bytes_are_refused_or_waited_for(data: bytes) -> None:
    reader = FrameReader[Said](Said, most_bytes=150)
    try:
        read = list(reader.feed(data))
    except FrameError:
        return
    assert all(isinstance(message, Said) for message in read)


def test_a_length_beyond_the_bound_is_refused_before_its_bytes_come() -> None:
    with pytest.raises(FrameError, match="at most 1000"):
        list(FrameReader[Said](Said, most_bytes=1000).feed((1001).to_bytes(4, "little")))


def test_a_message_too_large_for_a_frame_is_not_written() -> None:
    with pytest.raises(FrameError, match="holds at most"):
        write_frame(Said(1, [], bytes(17 << 20)))


def test_only_this_user_can_reach_the_socket() -> None:
    folder = PrivateFolder()
    path = folder.path / "a.sock"
    with listen(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    folder.close()
    assert not folder.path.exists()


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_a_link_carries_messages_both_ways_and_tells_when_it_is_cut(run) -> None:
    folder = PrivateFolder()
    path = folder.path / "a.sock"
    listener = listen(path)

    def other_end() -> None:
        connection, _ = listener.accept()
        reader = FrameReader[Said](Said)
        got: list[Said] = []
        while not got:
            got = list(reader.feed(connection.recv(7)))
        connection.sendall(write_frame(Said(got[0].number + 1, [], b"")))
        connection.sendall(b"\xff\xff\xff\xff")
        connection.close()

    async def talk() -> tuple[list[Said], Exception | None]:
        heard: list[Said] = []
        lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        link = await FrameLink.connect(path, FrameReader(Said), heard.append, lost.set_result)
        link.send(Said(41, ["a"], b"b"))
        error = await lost
        link.send(Said(0, [], b""))  # nobody is there any more, and that was told
        return heard, error

    thread = threading.Thread(target=other_end)
    thread.start()
    heard, error = run(talk())
    thread.join()
    listener.close()
    folder.close()
    assert heard == [Said(42, [], b"")]
    assert isinstance(error, FrameError)


def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    listen(path).close()
    with listen(path) as again:
        assert again.getsockname() == str(path)
