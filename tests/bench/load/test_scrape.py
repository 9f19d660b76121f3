"""What servers tell about themselves, from pages in the form in which each of them writes."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.load.scrape import Scrape, metrics_urls
from headrace.net.clock import World
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.numbers.live import Tally
from headrace.numbers.prometheus import write_metrics
from headrace.wire.prometheus_text import Chosen, MetricValue

RECORDED = Path(__file__).parents[2] / "wire" / "engine_pages"
VLLM = (RECORDED / "recorded/vllm.txt").read_bytes()
LLAMA = (RECORDED / "recorded/llama-server.txt").read_bytes()
SGLANG = (RECORDED / "written/sglang.txt").read_bytes()
TGI = (RECORDED / "written/tgi.txt").read_bytes()
MAX = (RECORDED / "recorded/max.txt").read_bytes()

PAGES = [
    (VLLM, {"vllm:num_requests_running": 32, "vllm:num_requests_waiting": 8,
            "vllm:kv_cache_usage_perc": 0.2644628099173554}),
    (LLAMA, {"llamacpp:requests_processing": 2, "llamacpp:requests_deferred": 3,
             "llamacpp:n_busy_slots_per_decode": 1}),
    (SGLANG, {"sglang:num_running_reqs": 161, "sglang:num_queue_reqs": 2826,
              "sglang:num_used_tokens": 123859, "sglang:gen_throughput": 86.5,
              "sglang:token_usage": 0.28, "sglang:cache_hit_rate": 0.9}),
    (TGI, {"tgi_queue_size": 5, "tgi_batch_current_size": 8,
           "tgi_batch_current_max_tokens": 4096}),
    (MAX, {"maxserve_num_requests_running": 6, "maxserve_num_requests_queued": 2,
           "maxserve_cache_num_used_blocks": 4, "maxserve_cache_num_total_blocks": 64}),
]  # fmt: skip


def having_made(tokens):
    """vLLM's page once it has made so many."""
    name = b'vllm:generation_tokens_total{engine="0",model_name="smollm2"} '
    assert name in VLLM
    return VLLM.replace(name + b"8323.0", name + b"%d.0" % tokens)


def scraped(pages, *, urls=("http://server:8000/metrics",), seconds=10.0, **more):
    """What a scrape of ``pages``, one after the other and the first for looking, has found."""
    clock = ManualClock(auto=True)
    answers = [p if isinstance(p, ScriptedAnswer) else ScriptedAnswer(body=p) for p in pages]
    transport = ScriptedTransport(answers, clock=clock)

    async def run():
        scrape = Scrape(urls, World(transport=transport, clock=clock), **more)
        if await scrape.look():
            task = asyncio.ensure_future(scrape.run(clock.monotonic()))
            await clock.sleep(seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return scrape

    return asyncio.run(run())


@pytest.mark.parametrize(("page", "gauges"), PAGES)
def test_the_gauges_of_each_server_are_found(page, gauges):
    scrape = scraped([page] * 3, seconds=1.5)
    found = {s.name: s for s in scrape.series() if s.kind == "gauge"}
    assert {name: s.values for name, s in found.items()} == {
        name: (value, value) for name, value in gauges.items()
    }
    assert {s.at for s in found.values()} == {(0.0, 1.0)}
    assert scrape.notes == []


def test_our_own_page_is_read_as_well():
    page = write_metrics(Tally(0.0), 1.0)
    assert Chosen(["headrace_uptime_seconds"]).read(page) == [
        MetricValue("headrace_uptime_seconds", "", 1.0)
    ]


def test_a_counter_becomes_what_it_grew_by_a_second_and_may_begin_again():
    scrape = scraped([having_made(n) for n in (0, 100, 150, 30)], seconds=2.5)
    (tokens,) = [s for s in scrape.series() if s.name == "vllm:generation_tokens_total"]
    assert (tokens.kind, tokens.at, tokens.values) == ("counter", (1.0, 2.0), (50.0, 30.0))
    assert tokens.labels == 'engine="0",model_name="smollm2"'


def test_any_other_metric_is_found_by_its_name_and_its_absence_is_told():
    page = TGI + b"# TYPE gpu_watts gauge\ngpu_watts 300\n"
    scrape = scraped([page] * 2, seconds=0.5, names=("gpu_watts", "gpu_degrees"))
    assert {s.name: s.values for s in scrape.series()}["gpu_watts"] == (300.0,)
    assert scrape.notes == ["the server does not tell gpu_degrees"]


def test_a_server_without_metrics_is_a_note():
    scrape = scraped([ScriptedAnswer(status=404)])
    assert scrape.series() == ()
    assert scrape.notes == ["no metrics of the server (http://server:8000/metrics: status 404)"]


def test_a_page_that_is_no_page_of_metrics_is_a_note():
    assert "none that we know" in scraped([b"<html>hello</html>"]).notes[0]


def test_a_server_that_nobody_answers_for_is_a_note():
    assert "no metrics of the server" in scraped([ScriptedAnswer(fault="refuse")]).notes[0]


def test_a_page_that_hangs_is_given_up_and_asked_for_again():
    pages = [TGI, ScriptedAnswer(body=(TGI[:40],), fault="hang"), TGI, TGI]
    scrape = scraped(pages, seconds=3.5)
    assert len(scrape.series()[0].at) == 2
    assert scrape.notes == []


def test_metrics_that_end_midway_are_kept_and_their_end_is_told():
    pages = [TGI, TGI, *[ScriptedAnswer(fault="refuse")] * 5]
    scrape = scraped(pages, seconds=20)
    assert scrape.series()[0].at == (0.0,)
    assert "the server's metrics end at 5 s" in scrape.notes[0]


def test_metrics_are_looked_for_beside_the_target():
    assert metrics_urls("127.0.0.1:8000") == (
        "http://127.0.0.1:8000/metrics",
        "http://127.0.0.1:8001/metrics",
    )
    assert metrics_urls("https://h/models/a/v1") == (
        "https://h:443/models/a/metrics",
        "https://h:443/metrics",
    )
    assert metrics_urls("http://h/v1", "http://other:9/m") == ("http://other:9/m",)


def test_only_the_server_that_keeps_them_there_is_believed_on_the_other_port():
    urls = metrics_urls("http://h:8000")
    assert scraped([ScriptedAnswer(status=404), TGI], urls=urls).series() == ()
    found = scraped([ScriptedAnswer(status=404), MAX, MAX], urls=urls, seconds=0.5).series()
    assert "maxserve_num_requests_queued" in {s.name for s in found}
    assert {s.name.partition("_")[0] for s in found} == {"maxserve"}


@given(
    st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(), max_size=3),
    st.floats(),
)
def test_labels_may_hold_anything(labels, value):
    def escaped(text):
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')

    inside = ",".join(f'{name}="{escaped(text)}"' for name, text in labels.items())
    page = f"other 1\nwanted{{{inside}}} {value}\nwanted_not 3\n".encode("utf-8", "replace")
    found = Chosen(["wanted"]).read(page)
    if value != value or value in (float("inf"), float("-inf")):
        assert found == []
    else:
        assert [f.value for f in found] == [value]
        assert found[0].labels.encode() == inside.encode("utf-8", "replace")
