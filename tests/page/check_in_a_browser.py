"""``make page-check``: the page in a real browser, with real answers behind it.

Not among the usual tests, for it takes a minute and needs Chromium (Debian: ``apt-get install
chromium``). Pictures go to the folder that ``HEADRACE_SCREENSHOTS`` names.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from gateway.served import MODEL, Served, until

WIDTHS = (360, 768, 1440)
LIVE = "document.getElementById('state').dataset.state === 'live'"
LATENCIES = {
    "ttft": "headrace_time_to_first_token_seconds",
    "tpot": "vllm:request_time_per_output_token_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
    "queue": "vllm:request_queue_time_seconds",
}
KEY = "hr-key-for-the-browser"


@pytest.fixture(scope="module")
def busy(gateway, tmp_path_factory):
    """A gateway with a model, a backend whose calls have a price, and one that is dead."""
    priced = {
        "name": "priced",
        "provider": "openai",
        "base_url": f"{gateway.url}/v1",
        "api_key": "none",
        "model": MODEL,
        "models": ["gpt-4o-mini"],
    }
    dead = {"name": "dead", "base_url": "http://127.0.0.1:9/v1", "breaker_failures": 3}
    config = {"backends": [priced, dead], "engine": {"kv_tokens": 4096}}
    served = Served(tmp_path_factory.mktemp("busy"), config)
    try:
        until(lambda: served.chat().status == 200)
        yield served
    finally:
        served.stop()


def load(served, seconds):
    """Calls of all sorts, three at a time."""
    end = time.monotonic() + seconds

    def calls(place):
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                served.chat("Tell me of rivers.", model="gpt-4o-mini", max_tokens=6)
                with served.streaming(max_tokens=24) as response:
                    response.read(400 if place == 0 else None)
                served.chat(model="dead")
                served.post("/v1/embeddings", {"input": ["a river", "a lake"]})

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(calls, range(3)))
    until(served.quiet)


def read(text):
    """The number that a text on the page says, in the base unit; None for a dash."""
    text = text.replace(",", "")
    found = re.fullmatch(r"\$?([\d.]+) ?(ms|s|%|k|M|G)?", text)
    if found is None:
        assert text == "–", text
        return None
    scale = {"ms": 1e-3, "%": 1e-2, "k": 1e3, "M": 1e6, "G": 1e9}
    return float(found[1]) * scale.get(found[2], 1)


def shown(browser):
    """All figures by name, as read off the page."""
    texts = browser.value(
        "Object.fromEntries([...document.querySelectorAll('data[data-figure]')]"
        ".map((e) => [e.dataset.figure, e.textContent]))"
    )
    return {name: read(text) for name, text in texts.items() if name != "uptime"}


def test_each_figure_agrees_with_the_metrics(browser, busy, pictures):
    browser.look(1440, 900, dark=False)
    browser.open(f"{busy.url}/")
    browser.until(LIVE)
    until(lambda: busy.get("/snapshot").json["completion_tokens_per_s"] == 0)
    counters = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    before = [busy.metric(name) for name in (*counters, "headrace_requests_total")]
    load(busy, 7)
    after = [busy.metric(name) for name in (*counters, "headrace_requests_total")]
    browser.until(f"document.querySelector('[data-figure=\"requests.all\"]').value == {after[2]}")
    figures = shown(browser)
    rates = ("prompt_tokens_per_s", "completion_tokens_per_s", "requests_per_s")
    for name, old, new in zip(rates, before, after, strict=True):
        assert figures[name] == pytest.approx((new - old) / 10, rel=0.02), name
    load(busy, float(os.environ.get("HEADRACE_PAGE_LOAD_S", "60")))
    metric = busy.metric
    whole = metric("headrace_requests_total")
    browser.until(f"document.querySelector('[data-figure=\"requests.all\"]').value == {whole}")
    figures = shown(browser)
    cancelled = metric("headrace_requests_total", error_type="LLMCancelledError")
    ok = metric("headrace_requests_total", error_type="")
    expected = {
        "requests.ok": ok,
        "requests.cancelled": cancelled,
        "requests.error": whole - ok - cancelled,
        "requests.all": whole,
        "error_share": (whole - ok - cancelled) / whole,
        "running": metric("vllm:num_requests_running"),
        "queued": metric("vllm:num_requests_waiting"),
        "prompt_tokens": metric("vllm:prompt_tokens_total"),
        "completion_tokens": metric("vllm:generation_tokens_total"),
        "price_usd": metric("headrace_cost_usd_total"),
        "ttft.count": metric("headrace_time_to_first_token_seconds_count"),
    }
    assert min(ok, whole - ok - cancelled, figures["price_usd"]) > 0
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=0.02), name
    for mine, name in LATENCIES.items():
        mean = metric(f"{name}_sum") / metric(f"{name}_count")
        assert figures[f"{mine}.mean_s"] == pytest.approx(mean, rel=0.02), mine
        for q in (0.5, 0.9, 0.95, 0.99):
            value = figures[f"{mine}.p{round(q * 100)}_s"]
            if value is not None:
                low, high = bucket(busy, name, q)
                assert low * 0.98 <= value <= high * 1.02, (mine, q)
    for kind, n in busy.get("/snapshot").json["errors"].items():
        assert metric("headrace_requests_total", error_type=kind) == n
    assert "circuit open" in browser.value("document.getElementById('lanes').innerText")
    spans = "[...document.querySelectorAll('#lanes dd p span')].map((e) => e.innerText)"
    assert browser.value(spans)[:4] == ["llama.cpp", "0 running", "0 waiting", "batch 0%"]
    browser.shoot(pictures / "after-load.png")


def bucket(served, name, q):
    """The bounds between which the metrics say that the quantile ``q`` lies."""
    heights = {}
    for sample in served.samples():
        if sample.name == f"{name}_bucket":
            bound = float(sample.labels["le"])
            heights[bound] = heights.get(bound, 0) + sample.value
    rank, low = int(q * (max(heights.values()) - 1)), 0.0
    for bound in sorted(heights):
        if heights[bound] > rank:
            return low, bound
        low = bound
    raise AssertionError("a histogram ends with all of its values")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", ["dashboard", "playground"])
def test_it_fits_every_width(browser, busy, pictures, view, width, dark):
    browser.look(width, 900, dark=dark)
    browser.open(f"{busy.url}/")
    browser.until(LIVE)
    browser.value(f"document.getElementById('tab-{view}').click()")
    browser.until(f"!document.getElementById('{view}').hidden")
    time.sleep(0.6)  # two snapshots, so that the picture shows figures
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")
    if view == "dashboard" and width == 1440:
        recent = "document.getElementById('recent').parentElement"
        assert browser.value(f"{recent}.scrollWidth <= {recent}.clientWidth")
    tone = "dark" if dark else "light"
    browser.shoot(pictures / f"{view}-{width}-{tone}.png")


def test_the_playground_answers_and_stops(browser, busy, pictures):
    browser.look(1440, 900, dark=False)
    browser.open(f"{busy.url}/#playground")
    browser.until("document.getElementById('model').value")
    ask = (
        "document.getElementById('model').value = '{model}';"
        "document.getElementById('max_tokens').value = '{most}';"
        "document.getElementById('prompt').value = 'Tell me of rivers.';"
        "document.getElementById('ask').requestSubmit()"
    )
    facts = "[...document.querySelectorAll('.facts')].at(-1)?.innerText ?? ''"
    browser.value(ask.format(model=MODEL, most=12))
    told = browser.until(f"document.getElementById('stop').hidden && ({facts})")
    assert re.search(r"first token [\d.]+ m?s", told)
    assert re.search(r"[\d.]+ tokens/s", told)
    assert re.search(r"\d+ in, 12 out", told)
    assert told.endswith("length")
    browser.value(ask.format(model="gpt-4o-mini", most=8))
    browser.until(f"({facts}).includes('$')")
    browser.shoot(pictures / "playground.png")
    # In a conversation of its own: after answers that were cut off, the model cuts its next one.
    browser.open(f"{busy.url}/?again#playground")
    browser.until("document.getElementById('model').value")
    browser.value(ask.format(model=MODEL, most=3000))
    browser.until("[...document.querySelectorAll('.words')].at(-1).innerText.length > 20")
    browser.value("document.getElementById('stop').click()")
    browser.until(f"({facts}).endsWith('stopped')")
    until(busy.quiet)


def test_a_models_markdown_becomes_no_code(browser, busy):
    browser.open(f"{busy.url}/")
    nasty = (
        "# <img src=x onerror=alert(1)>\\n<script>alert(1)</script>\\n"
        "[a](javascript:alert(1)) ![b](https://example.com/x.png) [c](https://example.com)\\n\\n"
        "- **one** `two<b>`\\n  1. deeper\\n\\n> said\\n\\n|a|b|\\n|-|-|\\n|1|2|\\n\\n```js\\n<i>\\n```"
    )
    told = browser.value(
        f"import('/page/markdown.js').then(({{render}}) => {{ const b = document.createElement('div');"
        f"b.append(...render('{nasty}')); return [[...b.querySelectorAll('*')].map((e) => e.localName),"
        "[...b.querySelectorAll('[href],[src]')].map((e) => e.getAttribute('href'))]})"
    )
    tags, addresses = told
    assert not {"img", "script", "iframe", "object", "style"} & set(tags)
    assert {"h3", "ul", "ol", "li", "strong", "code", "blockquote", "table", "pre"} <= set(tags)
    assert set(addresses) == {"https://example.com", "https://example.com/x.png"}
    assert not [a for a in browser.addresses if "example.com" in a]


def test_the_tabs_are_worked_from_the_keyboard(browser, busy):
    browser.open(f"{busy.url}/")
    browser.until(LIVE)
    browser.value("document.getElementById('tab-dashboard').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.ask("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight")
    browser.until("!document.getElementById('playground').hidden")
    assert browser.value("document.activeElement.id") == "tab-playground"
    named = browser.value(
        "[...document.querySelectorAll('button, input, select, textarea')].filter((e) =>"
        "!(e.innerText || e.labels?.length || e.getAttribute('aria-label'))).map((e) => e.id)"
    )
    assert named == []


def test_it_was_content_and_asked_nobody_else(browser, busy):
    """Of all that was done above: no word in the console, no request elsewhere."""
    assert browser.complaints == []
    assert {a for a in browser.addresses if not a.startswith((busy.url, "about:"))} == set()


def test_a_server_with_keys_is_asked_for_one(browser, tmp_path, pictures):
    quick = {"engine": {"enabled": False}, "embeddings": {"enabled": False}}
    dead = {"backends": [{"name": "dead", "base_url": "http://127.0.0.1:9/v1"}]}
    served = Served(tmp_path, {**quick, **dead, "server": {"api_keys": [KEY]}})
    try:
        browser.open(f"{served.url}/")
        browser.until("!document.getElementById('ask-key').hidden")
        browser.shoot(pictures / "key.png")
        assert browser.complaints == []
        give = (
            "document.getElementById('key').value = '{}';"
            "document.getElementById('ask-key').requestSubmit()"
        )
        browser.value(give.format("wrong"))
        browser.until("document.getElementById('key-why').innerText.includes('not know')")
        browser.value(give.format(KEY))
        browser.until(LIVE)
        assert not [a for a in browser.addresses if KEY in a]
    finally:
        served.stop()
