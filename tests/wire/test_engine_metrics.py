"""What engines tell of themselves reads the same for all of them, from pages as each writes it.

The pages under ``recorded`` came from servers that ran; those under ``written`` were made after the
engine's own documents, which each names.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.numbers.live import Tally
from headrace.numbers.prometheus import write_metrics
from headrace.wire.engine_metrics import read_engine_metrics
from headrace.wire.engine_names import ENGINES, FIELDS, kind_of

PAGES = Path(__file__).parent / "engine_pages"
TOLD = {
    "recorded/llama-server.txt": EngineMetrics(
        engine="llama-server",
        running=2,
        queued=3,
        batch_size=1.0,
        prefix_hit_rate=39 / 80,
        prompt_tokens=80,
        completion_tokens=8,
    ),
    "recorded/vllm.txt": EngineMetrics(
        engine="vllm",
        running=32,
        queued=8,
        cache_usage=0.2644628099173554,
        prefix_hit_rate=0.0,
        prompt_tokens=1976,
        completion_tokens=8323,
    ),
    "recorded/max.txt": EngineMetrics(
        engine="max",
        running=4,
        queued=2,
        batch_size=264 / 67,
        cache_usage=4 / 64,
        prefix_hit_rate=0.0,
        prompt_tokens=208,
        completion_tokens=160,
    ),
    "written/llama-server-before-2025.txt": EngineMetrics(
        engine="llama-server",
        running=4,
        queued=46,
        batch_size=3.87,
        cache_usage=0.4,
        prompt_tokens=33065,
        completion_tokens=7801,
    ),
    "written/vllm-0.8.txt": EngineMetrics(
        engine="vllm",
        running=4,
        queued=2,
        cache_usage=0.5,
        prefix_hit_rate=0.25,
        prompt_tokens=400,
        completion_tokens=75,
    ),
    "written/sglang.txt": EngineMetrics(
        engine="sglang",
        running=161,
        queued=2826,
        cache_usage=0.28,
        prefix_hit_rate=0.25,
        prompt_tokens=8_000_000,
        completion_tokens=7_557_572,
    ),
    "written/tgi.txt": EngineMetrics(
        engine="tgi", running=8, queued=5, prompt_tokens=640, completion_tokens=220
    ),
    "written/ollama.json": EngineMetrics(engine="ollama", loaded=("mistral:latest",)),
}


def test_every_page_that_we_have_is_read():
    there = {str(path.relative_to(PAGES)) for path in PAGES.rglob("*.*")}
    assert there == set(TOLD)


@pytest.mark.parametrize("name", TOLD)
def test_a_page_says_what_its_engine_told(name):
    assert read_engine_metrics((PAGES / name).read_bytes()) == TOLD[name]


def test_a_gateway_of_ours_is_known_although_it_uses_the_names_of_vllm():
    tally = Tally(0.0, ("a", "b"))
    assert read_engine_metrics(write_metrics(tally, 1.0)) == EngineMetrics(
        engine="headrace", running=0, queued=0, prompt_tokens=0, completion_tokens=0
    )


def test_what_a_gateway_tells_of_its_engines_is_not_taken_for_its_own():
    engines = {"far": [EngineMetrics(engine="vllm", running=9, queued=9)]}
    told = read_engine_metrics(write_metrics(Tally(0.0, ("a",)), 1.0, engines))
    assert told is not None
    assert (told.engine, told.running) == ("headrace", 0)


def test_sglang_without_counters_of_prefixes_tells_the_last_batch():
    page = b"sglang:num_running_reqs 1\nsglang:cache_hit_rate 0.75\n"
    told = read_engine_metrics(page)
    assert told is not None
    assert told.prefix_hit_rate == 0.75


def test_a_share_of_nothing_is_unknown_and_no_share_is_more_than_all():
    page = (
        b"vllm:num_requests_running 0\nvllm:prefix_cache_queries_total 0\n"
        b"vllm:prefix_cache_hits_total 0\nvllm:kv_cache_usage_perc 1.0000001\n"
    )
    told = read_engine_metrics(page)
    assert told is not None
    assert told.prefix_hit_rate is None
    assert told.cache_usage == 1.0


def test_who_waits_at_max_is_not_counted_among_those_who_run():
    page = (PAGES / "recorded/max.txt").read_text()
    assert "maxserve_num_requests_running 6.0" in page
    assert "maxserve_num_requests_queued 2.0" in page
    told = read_engine_metrics(page.encode())
    assert told is not None
    assert (told.running, told.queued) == (4, 2)
    before_its_first_batch = read_engine_metrics(b"maxserve_num_requests_running 6.0\n")
    assert before_its_first_batch is not None
    assert (before_its_first_batch.running, before_its_first_batch.queued) == (6, None)


@pytest.mark.parametrize(
    "page", [b"", b"<html>404</html>", b"{}", b'{"models": 3}', b"{", b"# HELP go_gc x\ngo_gc 1\n"]
)
def test_a_page_of_nobody_that_we_know_tells_nothing(page):
    assert read_engine_metrics(page) is None


@given(st.binary(max_size=200), st.sampled_from(sorted(TOLD)), st.integers(0, 2000))
def test_no_damage_to_a_page_is_more_than_a_lack(junk, name, place):
    page = (PAGES / name).read_bytes()
    read_engine_metrics(page[:place] + junk + page[place:])


def test_each_name_stands_for_one_kind_and_one_engine_but_those_that_we_share_with_vllm():
    owners: dict[str, set[str]] = {}
    for engine in ENGINES:
        for name in engine.names():
            owners.setdefault(name, set()).add(engine.engine)
            assert kind_of(name) in {"gauge", "counter"}
    shared = {name for name, of in owners.items() if len(of) > 1}
    assert all(owners[name] == {"headrace", "vllm"} for name in shared)
    assert set(FIELDS) < {field.name for field in EngineMetrics.__attrs_attrs__}
