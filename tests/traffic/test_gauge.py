"""How full engines are: asked of them where somebody looks, never in the way, unknown where unsaid."""

from __future__ import annotations

import asyncio

import pytest
from attrs import evolve

from headrace.backends.metrics import metrics_place
from headrace.backends.providers import PROVIDERS, Provider
from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMError
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.traffic.endpoint import open_lane
from headrace.traffic.lane import queue_of
from traffic.play import play

TELLS = Provider(name="tells", metrics_path="/metrics")


def page(running, queued=0):
    text = f"vllm:num_requests_running {running}\nvllm:num_requests_waiting {queued}\n"
    return ScriptedAnswer(body=text.encode())


class Engine:
    """An engine that tells these pages, one after the other, and the lane to it."""

    def __init__(self, *pages, row=TELLS, url="http://engine:9/v1", **more):
        self.clock = ManualClock(monotonic=0.0)
        self.transport = ScriptedTransport(list(pages), self.clock)
        world = World(transport=self.transport, clock=self.clock)
        remote = Remote(name="far", provider=row, base_url=url, world=world, **more)
        self.lane = open_lane(remote, self.clock)

    @property
    def asked(self):
        return len(self.transport.requests)

    async def look(self):
        """What is known once all that can be said now was said."""
        self.lane.metrics()
        for _ in range(10):
            await asyncio.sleep(0)
        return self.lane.metrics()


def test_to_look_waits_for_nobody_and_the_next_look_knows():
    async def main():
        engine = Engine(page(3, 2))
        assert engine.lane.metrics() == ()
        (told,) = await engine.look()
        assert (told.engine, told.running, told.queued) == ("vllm", 3, 2)
        assert queue_of(engine.lane) == 5

    play(main)


def test_nobody_is_asked_while_nobody_looks_and_once_a_second_where_many_do():
    async def main():
        engine = Engine(*[page(n) for n in range(9)])
        await engine.clock.advance(100)
        assert engine.asked == 0
        for _ in range(50):
            await engine.look()
        assert engine.asked == 1
        await engine.clock.advance(1)
        await engine.look()
        assert engine.asked == 2
        assert queue_of(engine.lane) == 1

    play(main)


def test_what_was_told_is_soon_not_known_any_more():
    async def main():
        engine = Engine(page(3), ScriptedAnswer(fault="hang"))
        await engine.look()
        await engine.clock.advance(4)
        assert queue_of(engine.lane) == 3
        await engine.clock.advance(1)
        assert queue_of(engine.lane) is None
        await engine.clock.advance(5)  # it is given up, and nothing is left waiting

    play(main)


@pytest.mark.parametrize(
    "silence",
    [
        ScriptedAnswer(status=404, body=b"nothing here"),
        ScriptedAnswer(body=b"<html>a page</html>"),
        ScriptedAnswer(fault="refuse"),
        ScriptedAnswer(fault="hang"),
        ScriptedAnswer(body=(b"vllm:num_requests_running 7\n",), fault="hang"),
        ScriptedAnswer(body=b"x" * (5 << 20)),
    ],
    ids=["404", "no metrics", "refused", "hangs", "hangs midway", "endless"],
)
def test_an_engine_that_does_not_tell_is_unknown_and_left_alone_for_a_while(silence):
    async def main():
        engine = Engine(page(1), silence, page(2))
        await engine.look()
        await engine.clock.advance(1)
        await engine.look()
        await engine.clock.advance(3)
        assert await engine.look() == ()
        assert queue_of(engine.lane) is None
        assert engine.asked == 2
        await engine.clock.advance(7)
        await engine.look()
        assert queue_of(engine.lane) == 2

    play(main)


def test_who_has_to_know_waits_but_not_for_long():
    async def main():
        told = Engine(page(4))
        assert [each.running for each in await told.lane.read_metrics(5)] == [4]
        assert [each.running for each in await told.lane.read_metrics(5)] == [4]
        assert told.asked == 1
        hangs = Engine(ScriptedAnswer(fault="hang"))
        assert await hangs.lane.read_metrics(0.01) == ()
        await hangs.clock.advance(3)

    play(main)


@pytest.mark.parametrize(
    ("told", "queue"),
    [
        (b"vllm:num_requests_running 7\n", 7),
        (b"vllm:num_requests_waiting 7\n", None),
        (b"maxserve_num_requests_running 9\nmaxserve_num_requests_queued 4\n", 9),
    ],
)
def test_an_engine_has_as_many_as_it_tells_and_nobody_knows_how_many_where_it_does_not(told, queue):
    async def main():
        engine = Engine(ScriptedAnswer(body=told))
        await engine.look()
        assert queue_of(engine.lane) == queue

    play(main)


def test_a_hosted_provider_is_never_asked():
    engine = Engine(row=PROVIDERS["openai"], key="k")
    assert engine.lane.metrics() == ()
    assert queue_of(engine.lane) is None
    assert engine.asked == 0


def test_another_backend_in_the_same_place_is_the_one_that_is_asked():
    async def main():
        old, new = Engine(page(1)), Engine(page(9))
        await old.look()
        old.lane = evolve(old.lane, backend=new.lane.backend)
        await old.clock.advance(1)
        await old.look()
        assert queue_of(old.lane) == 9

    play(main)


@pytest.mark.parametrize(
    ("row", "base", "place"),
    [
        ("vllm", "http://h:8000/v1", "http://h:8000/metrics"),
        ("vllm", "https://h/models/a/v1", "https://h:443/models/a/metrics"),
        ("sglang", "http://h:30000/v1", "http://h:30000/metrics"),
        ("llama-server", "http://h:8080", "http://h:8080/metrics"),
        ("max", "http://h:8000/v1", "http://h:8001/metrics"),
    ],
)
def test_each_engine_is_asked_where_it_tells(row, base, place):
    found = metrics_place(PROVIDERS[row], base)
    assert found is not None
    assert found.origin + found.target == place


def test_only_the_engine_itself_is_believed_on_a_port_beside_its_own():
    async def main():
        stranger = Engine(page(4), row=PROVIDERS["max"], url="http://h:8000/v1")
        assert await stranger.look() == ()
        own = ScriptedAnswer(body=b"maxserve_num_requests_running 4.0\n")
        (told,) = await Engine(own, row=PROVIDERS["max"], url="http://h:8000/v1").look()
        assert (told.engine, told.running) == ("max", 4)

    play(main)


def test_the_key_is_shown_to_the_server_that_it_belongs_to_and_to_no_other():
    async def asked(**more):
        engine = Engine(page(1), key="secret", **more)
        await engine.look()
        (request,) = engine.transport.requests
        return request.url, dict(request.headers).get("authorization")

    async def main():
        url, key = await asked()
        assert (url.origin + url.target, key) == ("http://engine:9/metrics", "Bearer secret")
        url, key = await asked(metrics_url="http://monitor:1/m?of=engine")
        assert (url.origin + url.target, key) == ("http://monitor:1/m?of=engine", None)

    play(main)


def test_whoever_asks_a_backend_itself_is_told_what_kept_it_from_telling():
    async def main():
        engine = Engine(ScriptedAnswer(status=501))
        with pytest.raises(LLMError, match="far answers /metrics with 501"):
            await engine.lane.backend.metrics()

    play(main)
