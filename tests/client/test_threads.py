"""The synchronous client where programs use it: threads, forks, notebooks, Ctrl-C and the end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from client.test_faults import END, HEAD, chunk
from headrace import Client, LLMUnavailableError
from headrace.stores.credentials import Credentials
from headrace.traffic.endpoint import EndpointSettings
from net.byte_server import ByteServer, Peer, serving
from traffic.play import ENDING, OPENING, said

PATIENCE_S = 60.0
NOTHING = Credentials(environment={}, dotenv=None, config=None, seed=None)


class Echo:
    """Answers with the text it was sent; ``most`` is how many it answered at once.

    The text ``endless`` is answered without an end, until the caller has left.
    """

    def __init__(self) -> None:
        self.now = self.most = 0
        self.left = threading.Event()

    async def __call__(self, peer: Peer) -> None:
        while True:
            request = await peer.request()
            text = json.loads(request.partition(b"\r\n\r\n")[2])["messages"][0]["content"]
            self.now += 1
            self.most = max(self.most, self.now)
            try:
                peer.send(HEAD + chunk(OPENING))
                while text == "endless":
                    if peer.gone.is_set():
                        self.left.set()
                        return
                    peer.send(chunk(said("on ")))
                    await asyncio.sleep(0.005)
                for word in text.split(" "):
                    peer.send(chunk(said(word + " ")))
                    await asyncio.sleep(0.001)
            finally:
                self.now -= 1
            peer.send(chunk(b"".join(ENDING)) + END)


@contextmanager
def echoing() -> Iterator[tuple[Echo, ByteServer, str]]:
    """A server on a thread of its own, and its base URL."""
    echo, started = Echo(), threading.Event()
    held: list[tuple[ByteServer, asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def live() -> None:
        async with serving(echo) as server:
            stop = asyncio.Event()
            held.append((server, asyncio.get_running_loop(), stop))
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(live(),))
    thread.start()
    assert started.wait(PATIENCE_S)
    server, loop, stop = held[0]
    try:
        yield echo, server, f"http://127.0.0.1:{server.url.port}/v1"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def program(base: str, text: str) -> subprocess.CompletedProcess[str]:
    """Run a program that has a ``client``, in an interpreter where warnings are errors."""
    opening = f"""
import asyncio, os, signal, sys, threading, time, warnings
from headrace import Client
from headrace.stores.credentials import Credentials

# Whoever runs the tests in the background may have left us SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
nothing = Credentials(environment={{}}, dotenv=None, config=None, seed=None)
client = Client("m", base_url={base!r}, credentials=nothing)
"""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", opening + textwrap.dedent(text)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


@pytest.mark.parametrize("way", ["chat", "stream_chat"])
def test_threads_share_a_client_and_lose_nothing_and_keep_its_limit(way: str) -> None:
    asked = [f"this is call {number} of many" for number in range(32 * 6)]
    with (
        echoing() as (echo, server, base),
        Client(
            "m",
            base_url=base,
            credentials=NOTHING,
            endpoint=EndpointSettings(max_running=5, max_waiting=32),
        ) as client,
    ):

        def call(text: str) -> str:
            if way == "chat":
                return client.chat(text).text
            return "".join(event.delta_text or "" for event in client.stream_chat(text))

        with ThreadPoolExecutor(32) as threads:
            answers = list(threads.map(call, asked))
        assert answers == [text + " " for text in asked]
        assert echo.most == 5
        assert len(server.requests) == len(asked)
        stats = client.describe()["endpoints"]["openai-compatible"]["stats"]  # type: ignore[index]
        assert (stats["successes"], stats["running"], stats["waiting"]) == (len(asked), 0, 0)


def test_a_client_works_inside_a_running_loop_as_in_a_notebook() -> None:
    async def cell(base: str) -> tuple[str, str]:
        with Client("m", base_url=base, credentials=NOTHING) as client:
            streamed = [event.delta_text or "" for event in client.stream_chat("and so on")]
            return client.chat("well then").text, "".join(streamed)

    with echoing() as (_, _, base):
        assert asyncio.run(cell(base)) == ("well then ", "and so on ")


@pytest.mark.parametrize("way", ["stream_chat", "stream", "chat"])
def test_ctrl_c_closes_the_stream_and_leaves_the_client_usable(way: str) -> None:
    with echoing() as (echo, _, base):
        done = program(
            base,
            f"""
            from headrace import LLMMessage, LLMRequest
            way = {way!r}
            try:
                if way == "chat":
                    client.chat("all is loaded")

                    def interrupt():
                        endpoints = client.describe()["endpoints"].values
                        while not any(each["stats"]["running"] for each in endpoints()):
                            time.sleep(0.01)
                        time.sleep(0.3)
                        os.kill(os.getpid(), signal.SIGINT)

                    threading.Thread(target=interrupt).start()
                    client.chat("endless")
                elif way == "stream":
                    asked = LLMRequest(messages=(LLMMessage(role="user", content="endless"),))
                    for number, piece in enumerate(client.stream(asked)):
                        if number == 3:
                            os.kill(os.getpid(), signal.SIGINT)
                else:
                    for number, event in enumerate(client.stream_chat("endless")):
                        if number == 3:
                            os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                print("interrupted")
            print(client.chat("still here").text)
            (stats,) = (each["stats"] for each in client.describe()["endpoints"].values())
            print(stats["running"], stats["waiting"])
            """,
        )
        assert (done.stdout, done.stderr) == ("interrupted\nstill here \n0 0\n", "")
        assert echo.left.wait(PATIENCE_S)


def test_an_interrupt_that_the_system_gives_to_another_thread_is_heard() -> None:
    with echoing() as (echo, _, base):
        done = program(
            base,
            """
            client.chat("all is loaded")
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
            # All threads are there already, so each of them still takes the signal.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                client.chat("endless")
            except KeyboardInterrupt:
                print("interrupted")
            """,
        )
        assert (done.stdout, done.stderr) == ("interrupted\n", "")
        assert echo.left.wait(PATIENCE_S)


def test_a_forked_child_calls_over_connections_of_its_own() -> None:
    with echoing() as (_, server, base):
        done = program(
            base,
            """
            warnings.simplefilter("ignore", DeprecationWarning)  # Python warns of forks with threads
            print(client.chat("before").text, flush=True)
            child = os.fork()
            if child == 0:
                answered = client.chat("in the child").text
                client.close()
                os._exit(0 if answered == "in the child " else 1)
            _, status = os.waitpid(child, 0)
            print(status, client.chat("after").text)
            """,
        )
        assert (done.stdout, done.stderr) == ("before \n0 after \n", "")
        assert len(server.requests) == 3
        assert len(server.peers) == 2


@pytest.mark.parametrize("way", ["unused", "used", "in the middle of a stream"])
def test_the_interpreter_ends_in_silence_with_a_client_left_open(way: str) -> None:
    with echoing() as (echo, server, base):
        done = program(
            base,
            f"""
            if {way!r} == "used":
                client.chat("hello")
            elif {way!r} != "unused":
                events = iter(client.stream_chat("endless"))
                next(events)
            """,
        )
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
        if "stream" in way:
            assert echo.left.wait(PATIENCE_S)
        assert len(server.requests) == (0 if way == "unused" else 1)


def test_a_closed_client_refuses_in_words() -> None:
    with echoing() as (_, _, base):
        client = Client("m", base_url=base, credentials=NOTHING)
        assert client.chat("hello").text == "hello "
        client.close()
        client.close()
        with pytest.raises(LLMUnavailableError, match="closed") as caught:
            client.chat("hello")
        assert not caught.value.transient
