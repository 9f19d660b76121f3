"""The page and what feeds it: safe to open, in need of nothing from outside, true to the metrics."""

from __future__ import annotations

import asyncio
import json
import math
import re
import signal
from contextlib import contextmanager
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.served import PATIENCE_S, Served, until
from headrace.contracts.convert import from_json
from headrace.contracts.errors import LLMCancelledError
from headrace.contracts.snapshot import Snapshot
from headrace.gateway import page as page_module
from headrace.gateway.config import Config
from headrace.gateway.guard import Guard
from headrace.gateway.page import PAGE_PATHS
from headrace.gateway.routes import Routes
from headrace.gateway.standing import Standing
from headrace.gateway.watch import TICK_S, Watch
from headrace.net.clock import SystemClock
from headrace.numbers.history import History
from headrace.numbers.live import Tally

FILES = Path(page_module.__file__).parent / "page_files"
KEY = "hr-key-for-the-page"
QUICK = {
    "engine": {"enabled": False},
    "embeddings": {"enabled": False},
    # Nothing listens there: every call fails at once, and its circuit opens.
    "backends": [{"name": "dead", "base_url": "http://127.0.0.1:9/v1", "max_retries": 0}],
}


def serving(folder, **server):
    return Served(folder, {**QUICK, "server": {"drain_timeout_ms": 600_000, **server}})


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A gateway without a model."""
    served = serving(tmp_path_factory.mktemp("quick"))
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """One that asks for a key, and has room for two who watch."""
    served = serving(tmp_path_factory.mktemp("guarded"), api_keys=[KEY], max_watchers=2)
    try:
        yield served
    finally:
        served.stop()


@contextmanager
def watching(served, **headers):
    """A stream of snapshots, that has begun."""
    connection = served.connect()
    try:
        connection.request("GET", "/snapshot/stream", headers=headers)
        with connection.getresponse() as response:
            assert response.status == 200, response.read()
            assert response.getheader("content-type").startswith("text/event-stream")
            yield response
    finally:
        connection.close()


def event(response):
    """The next event's name and data."""
    name, data = None, None
    while (line := response.readline().rstrip(b"\n")) or data is None:
        assert line or data is not None, "the stream has ended"
        field, _, text = line.decode().partition(": ")
        if field == "event":
            name = text
        if field == "data":
            data = json.loads(text)
    return name, data


def as_key(key):
    return {"authorization": f"Bearer {key}"}


# The files


class Seen(HTMLParser):
    """What an HTML file loads, and what in it would be code in place."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.in_place, self.ids = [], [], []
        self._within = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self._within = tag
        self.ids += [given["id"]] if "id" in given else []
        if tag in {"script", "link", "img"}:
            self.loads.append(given.get("src") or given.get("href"))
        self.in_place += [name for name, _ in attrs if name == "style" or name.startswith("on")]

    def handle_endtag(self, tag):
        self._within = None

    def handle_data(self, data):
        if self._within in {"script", "style"} and data.strip():
            self.in_place.append(data)


def text_files():
    return [pytest.param(path, id=path.name) for path in sorted(FILES.iterdir())]


def test_every_file_of_the_page_has_its_path_and_every_path_its_file():
    assert {path.name for path in FILES.iterdir()} == set(PAGE_PATHS.values())


def test_the_page_loads_its_own_files_only_and_holds_no_code_itself():
    seen = Seen((FILES / "index.html").read_text())
    assert seen.in_place == []
    assert seen.loads
    assert set(seen.loads) <= set(PAGE_PATHS)
    assert len(seen.ids) == len(set(seen.ids))


@pytest.mark.parametrize("path", text_files())
def test_no_file_names_an_address_outside(path):
    text = path.read_text().replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?|wss?):(?://|\\/\\/)[\w.]|[\"'(]//\w|url\(|@import", text) == []


@pytest.mark.parametrize("path", [p for p in text_files() if p.id.endswith(".js")])
def test_no_script_makes_markup_or_code_of_text(path):
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|DOMParser|srcdoc"
    assert re.findall(forbidden, path.read_text()) == []


@pytest.mark.parametrize("path", [p for p in text_files() if p.id.endswith(".js")])
def test_what_a_script_imports_is_there(path):
    for name in re.findall(r'from "\./([\w.]+)"', path.read_text()):
        assert f"/page/{name}" in PAGE_PATHS


def test_what_the_scripts_look_for_is_in_the_page():
    ids = set(Seen((FILES / "index.html").read_text()).ids)
    for path in FILES.glob("*.js"):
        text = path.read_text()
        wanted = re.findall(
            r'(?:getElementById|\bat)\("([\w-]+)"\)|querySelector\("#([\w-]+)', text
        )
        assert {a or b for a, b in wanted} <= ids, path.name


# The answers


@pytest.mark.parametrize("path", sorted(PAGE_PATHS))
def test_each_file_comes_with_what_keeps_it_safe(quick, path):
    reply = quick.get(path)
    assert reply.status == 200
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"
    assert reply.headers["cache-control"] == "no-cache"
    rules = dict(
        rule.strip().partition(" ")[::2]
        for rule in reply.headers["content-security-policy"].split(";")
    )
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert rules["frame-ancestors"] == rules["base-uri"] == rules["form-action"] == "'none'"
    assert "unsafe" not in reply.headers["content-security-policy"]


def test_the_types_are_those_that_a_strict_browser_wants(quick):
    wanted = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for path in PAGE_PATHS:
        expected = wanted.get(Path(path).suffix, "text/html")
        assert quick.get(path).headers["content-type"].partition(";")[0] == expected


def test_a_file_that_has_not_changed_is_not_sent_again(quick):
    first = quick.get("/")
    again = quick.get("/", **{"if-none-match": first.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    assert quick.get("/", **{"if-none-match": '"another"'}).status == 200


def test_the_page_can_be_switched_off(tmp_path):
    served = serving(tmp_path, page=False)
    try:
        assert served.get("/").body == b"Ollama is running"  # what its clients look for there
        for path in ("/page/main.js", "/snapshot", "/snapshot/stream"):
            assert served.get(path).status == 404
        assert "/snapshot" not in served.get("/openapi.json").json["paths"]
        assert served.get("/metrics").status == 200
    finally:
        assert served.stop() == 0


# The snapshot


@pytest.fixture(scope="module")
def counted(box_model, tmp_path_factory):
    """A gateway that nobody else asks: four good calls, two that fail, one that leaves."""
    folder = tmp_path_factory.mktemp("counted")
    served = Served(folder, {**QUICK, "engine": {"kv_tokens": 2048}})
    try:
        yield served
    finally:
        served.stop()


def test_the_snapshot_agrees_with_the_metrics(counted):
    for _ in range(3):
        assert counted.chat("SECRET prompt", max_tokens=8).status == 200
    with counted.streaming(max_tokens=6, ignore_eos=True) as response:
        assert response.read().endswith(b"data: [DONE]\n\n")
    for _ in range(2):
        assert counted.chat(model="dead").status == 503
    with counted.streaming(max_tokens=900, ignore_eos=True):
        pass
    until(lambda: counted.metric("headrace_requests_total") == 7)
    reply = counted.get("/snapshot")
    told = from_json(reply.body, Snapshot)
    metric = counted.metric
    assert reply.headers["cache-control"] == "no-store"
    assert told.requests == {"ok": 4, "error": 2, "cancelled": 1}
    assert told.requests["ok"] == metric("headrace_requests_total", error_type="")
    assert told.errors == {
        kind: metric("headrace_requests_total", error_type=kind) for kind in told.errors
    }
    assert sum(told.errors.values()) == 3
    assert told.prompt_tokens == metric("vllm:prompt_tokens_total") > 0
    assert told.completion_tokens == metric("vllm:generation_tokens_total") > 0
    assert (told.running, told.queued) == (0, 0)
    for mine, name in (
        (told.ttft, "headrace_time_to_first_token_seconds"),
        (told.tpot, "vllm:request_time_per_output_token_seconds"),
        (told.e2e, "vllm:e2e_request_latency_seconds"),
        (told.queue, "vllm:request_queue_time_seconds"),
    ):
        assert mine.count == metric(f"{name}_count")
        if mine.count:
            assert mine.mean_s * mine.count == pytest.approx(metric(f"{name}_sum"))
    history = told.history
    assert sum(i.requests.get("ok", 0) for i in history.intervals) == 4
    assert sum(i.completion_tokens for i in history.intervals) == told.completion_tokens
    assert sum(sum(i.e2e) for i in history.intervals) == 4
    assert [r.outcome for r in history.recent].count("ok") == 4
    dead = next(lane for lane in told.lanes if lane.name == "dead")
    box = next(lane for lane in told.lanes if lane.engines)
    assert (dead.circuit, dead.provider) == ("closed", "openai-compatible")
    assert (box.circuit, box.provider, box.places, box.max_tokens) == (None, None, 32, 2048)
    assert [(e.name, e.ready, e.restarts) for e in box.engines] == [("llama.cpp", True, 0)]
    assert "SECRET" not in reply.body.decode()


def test_the_rates_are_those_of_the_counters(counted):
    before = counted.metric("vllm:generation_tokens_total")
    # What the tests before asked for, and what failed of it, has left the window.
    until(lambda: counted.get("/snapshot").json["requests_per_s"] == 0)
    counted.chat(max_tokens=8)
    told = counted.get("/snapshot").json
    grown = counted.metric("vllm:generation_tokens_total") - before
    assert told["completion_tokens_per_s"] * told["window_s"] == pytest.approx(grown, rel=0.02)
    assert told["requests_per_s"] * told["window_s"] == pytest.approx(1, rel=0.02)


# The stream


def test_each_event_tells_what_came_since_the_one_before(quick):
    with watching(quick) as response:
        name, first = event(response)
        assert name == "snapshot"
        quick.chat(headers={"x-request-id": "seen-by-who-watches"})
        recent, taken = [], [first["taken"]]
        while not recent:
            name, later = event(response)
            assert name == "snapshot"
            recent = later["history"]["recent"]
            taken.append(later["taken"])
        assert [call["request_id"] for call in recent] == ["seen-by-who-watches"]
        assert recent[0]["outcome"] == "error"
        assert len(later["history"]["intervals"]) == 1
        assert event(response)[1]["history"]["recent"] == []
    assert taken == sorted(set(taken))


def test_an_open_circuit_is_seen(quick):
    def circuit():
        quick.chat()
        return quick.get("/snapshot").json["lanes"][0]["circuit"]

    until(lambda: circuit() == "open")


def test_who_watches_keeps_nobody_from_stopping_the_server(tmp_path):
    served = serving(tmp_path)
    try:
        with watching(served) as response:
            event(response)
            served.process.send_signal(signal.SIGTERM)
            name = "snapshot"
            while name == "snapshot":
                name, _ = event(response)
            assert name == "end"
            assert response.read() == b""
        assert served.process.wait(PATIENCE_S) == 0
        assert "Traceback" not in served.log
    finally:
        served.stop()


def test_no_more_watch_than_may_and_who_leaves_makes_room(guarded):
    key = as_key(KEY)
    with watching(guarded, **key) as one, watching(guarded, **key) as two:
        event(one)
        event(two)
        refused = guarded.get("/snapshot/stream", **key)
        assert refused.status == 429
        assert refused.error["code"] == "too_many_watchers"
        assert int(refused.headers["retry-after"]) >= 1
        assert guarded.get("/snapshot", **key).status == 200

    def has_room():
        connection = guarded.connect()
        try:
            connection.request("GET", "/snapshot/stream", headers=key)
            return connection.getresponse().status == 200
        finally:
            connection.close()

    until(has_room)


def test_the_page_is_open_to_all_and_the_figures_are_not(guarded, quick):
    for path in PAGE_PATHS:
        assert guarded.get(path).status == 200
    assert b'data-needs-key="yes"' in guarded.get("/").body
    assert b'data-needs-key="no"' in quick.get("/").body
    for path in ("/snapshot", "/snapshot/stream"):
        assert guarded.get(path).status == 401
        assert guarded.get(path, **as_key("wrong")).status == 401
        assert guarded.get(f"{path}?key={KEY}").status == 401
    reply = guarded.get("/snapshot", **as_key(KEY))
    assert reply.status == 200
    assert KEY not in reply.body.decode()
    with watching(guarded, **as_key(KEY)) as response:
        assert event(response)[0] == "snapshot"


# In this process, where a reader can be as slow as it likes


def watch(**given):
    clock = SystemClock()
    return Watch(
        **{
            "tally": Tally(clock.monotonic()),
            "history": History(),
            "routes": lambda: NOTHING.routes,
            "clock": clock,
            "draining": lambda: False,
            **given,
        }
    )


NOTHING = Standing(config=Config(), routes=Routes([]), guard=Guard(()))
SCOPE = {"type": "http", "headrace.headers": [], "headrace.standing": NOTHING}


async def stays():
    await asyncio.Event().wait()
    raise AssertionError("nobody wakes it")


def test_who_takes_nothing_is_dropped_and_their_place_is_free():
    taken = []

    async def send(message):
        taken.append(message)
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    watched = watch(slowest_s=0.01)
    with pytest.raises(LLMCancelledError, match="took nothing"):
        asyncio.run(watched(SCOPE, stays, send))
    assert len(taken) == 2
    assert watched.watchers == 0


def test_all_who_watch_are_shown_the_same_instants():
    async def run():
        watched, stop = watch(draining=lambda: stop), False
        seen = [[], []]

        def sender(place):
            async def send(message):
                seen[place].append(message.get("body", b""))

            return send

        both = [asyncio.ensure_future(watched(SCOPE, stays, sender(i))) for i in (0, 1)]
        while min(map(len, seen)) < 4:
            await asyncio.sleep(0.01)
        stop = True
        await asyncio.gather(*both)
        return seen

    one, two = asyncio.run(run())
    instants = {
        json.loads(e.partition(b"data: ")[2])["taken"] for e in (one + two) if b'"taken"' in e
    }
    ticks = {math.floor(taken / TICK_S) for taken in instants}
    assert len(ticks) == len(instants) >= 3
    assert one[-1].startswith(b"event: end")
