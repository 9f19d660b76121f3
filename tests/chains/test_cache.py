"""Answers kept across runs: who is asked again, and who is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from headrace.chains.asking import Asked
from headrace.chains.cache import AnswerCache, CacheSettings, read_age, read_size
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import LLMChatParams

from .answering import answering
from .counting import Counting, counting
from .ending import CHAIN, Ended

ROWS = 20
DAY_S = 86_400
RUN = f"{sys.executable} -m headrace run"


def ended(tmp_path: Path, server: Counting, name: str, chain: str = CHAIN) -> Ended:
    made = Ended(tmp_path / name, server, ROWS)
    made.write_chain(chain)
    return made


def test_another_run_asks_for_nothing_that_is_in_the_cache(tmp_path: Path) -> None:
    with counting(0.0) as server:
        first, second = (ended(tmp_path, server, name) for name in ("first", "second"))
        first.ran("--cache", "../cache")
        server.forget()
        second.ran("--cache", "../cache")
        assert server.total == 0
    assert first.output == second.output


def test_what_is_asked_otherwise_is_asked_and_nothing_else(tmp_path: Path) -> None:
    seeded = "output: Kind, sampling: {{temperature: 0, seed: 1}}"
    changes = [
        ("name: small", "name: small, lazy: false", 0),
        ("id: second", "id: renamed", 0),
        ('"two ', '"then ', ROWS),
        ("output: Kind, sampling: {{temperature: 0}}", seeded, ROWS),
        ("enum: [even, odd]", "enum: [odd, even]", 2 * ROWS),
        ("model: m,", "model: other,", 2 * ROWS),
    ]
    with counting(0.0) as server:
        ended(tmp_path, server, "first").ran("--cache", "../cache")
        for number, (was, now, asked) in enumerate(changes):
            assert was in CHAIN
            server.forget()
            ended(tmp_path, server, f"{number}", CHAIN.replace(was, now)).ran("--cache", "../cache")
            assert server.total == asked, now


def test_a_sampled_step_is_kept_only_where_that_is_asked_for(tmp_path: Path) -> None:
    sampled = CHAIN.replace("temperature: 0", "temperature: 0.7")
    with counting(0.0) as server:
        runs = [ended(tmp_path, server, f"{number}", sampled) for number in range(4)]
        assert "not cached: first, second" in runs[0].ran("--cache", "../cache")
        runs[1].ran("--cache", "../cache")
        assert server.total == 4 * ROWS
        assert "not cached" not in runs[2].ran("--cache", "../cache", "--cache-sampled")
        runs[3].ran("--cache", "../cache", "--cache-sampled")
        assert server.total == 6 * ROWS


def test_runs_at_the_same_time_share_it(tmp_path: Path) -> None:
    with counting(0.01) as server:
        several = [ended(tmp_path, server, f"{number}") for number in range(4)]
        processes = [one.started("--cache", "../cache") for one in several]
        for process in processes:
            said = process.communicate(timeout=120)[1]
            assert process.returncode == 0, said
            assert "cache" not in said
        last = ended(tmp_path, server, "last")
        server.forget()
        last.ran("--cache", "../cache")
        assert server.total == 0
    assert {one.output for one in several} == {last.output}


def test_an_answer_that_was_cut_or_failed_is_asked_for_again(tmp_path: Path) -> None:
    chain = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: {url}}}
steps:
  - {{id: first, engine: small, user: "{{{{ text }}}}", sampling: {{temperature: 0}}}}
"""
    with answering(lambda prompt, before: 400 if prompt == "row 1" else f"<{prompt}>") as server:
        for name in ("first", "second"):
            run = Ended(tmp_path / name, server, 3)  # type: ignore[arg-type]
            run.write_chain(chain)
            run.ran("--cache", "../cache", status=3)
        assert dict(server.asked) == {"row 0": 1, "row 1": 2, "row 2": 1}


STEP = Step(id="one", engine="small", user="{{ text }}", sampling=LLMChatParams(temperature=0))
WHOLE = Done(b'"yes"', whole=True)
YES = Done(b'"yes"', price_usd="0", cached=True)


def cache_in(folder: Path, now: float = 0.0, **more: float) -> AnswerCache:
    settings = CacheSettings(folder=folder, **more)  # type: ignore[arg-type]
    return AnswerCache(settings, [EngineConfig(name="small", model="m")], clock=lambda: now)


def test_an_answer_that_is_not_whole_is_not_kept(tmp_path: Path) -> None:
    with cache_in(tmp_path) as cache:
        for number, done in enumerate(
            [WHOLE, Done(b'"ye"'), Done(b"[]", failed=True, whole=True), Done(b"[]", passing=True)]
        ):
            cache.keep(bytes([number]) * 16, done)
    with cache_in(tmp_path) as cache:
        assert [cache.find(bytes([number]) * 16) for number in range(4)] == [YES, None, None, None]


def test_an_answer_that_is_too_old_is_asked_for_again(tmp_path: Path) -> None:
    with cache_in(tmp_path) as cache:
        key = cache.key(Asked(STEP, ("a", None)))
        cache.keep(key, WHOLE)
    with cache_in(tmp_path, 6 * DAY_S, max_age_s=7 * DAY_S) as cache:
        assert cache.find(key) == YES
    # That it was used does not make it any younger.
    with cache_in(tmp_path, 8 * DAY_S, max_age_s=7 * DAY_S) as cache:
        assert cache.find(key) is None
        cache.keep(key, WHOLE)
    with cache_in(tmp_path, 9 * DAY_S, max_age_s=7 * DAY_S) as cache:
        assert cache.find(key) == YES


def test_it_stays_below_its_size_and_keeps_what_was_used_last(tmp_path: Path) -> None:
    keys = [number.to_bytes(16, "big") for number in range(3000)]
    for part in range(6):
        with cache_in(tmp_path, DAY_S * part, max_bytes=500_000) as cache:
            assert part == 0 or cache.find(keys[0]) is not None
            for key in keys[500 * part : 500 * (part + 1)]:
                cache.keep(key, Done(b'"%s"' % (b"x" * 400), whole=True))
    assert (tmp_path / "answers.sqlite").stat().st_size < 800_000
    with cache_in(tmp_path, 6 * DAY_S) as cache:
        found = [cache.find(key) is not None for key in keys]
    assert found[0]
    assert not any(found[1:1000])
    assert all(found[-500:])


def test_a_folder_that_cannot_be_used_is_refused_before_anybody_is_asked(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "answers.sqlite").write_bytes(b"\xa5" * 5000)
    (tmp_path / "file").write_text("")
    with counting(0.0) as server:
        run = ended(tmp_path, server, "run")
        said = run.ran("--cache", "../cache", status=1)
        assert "the cache in '../cache' cannot be used: file is not a database" in said
        assert "cannot be used" in run.ran("--cache", "../file", status=1)
        assert "cache_max_age is 'soon'" in run.ran(
            "--cache", "x", "--cache-max-age", "soon", status=1
        )
        assert server.total == 0


def test_a_cache_without_room_is_told_of_once_and_the_run_goes_on(tmp_path: Path) -> None:
    if subprocess.run(["unshare", "-rm", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    with counting(0.0) as server:
        run = Ended(tmp_path, server, 10 * ROWS)
        words = "chain.yaml in.jsonl -o out.jsonl --no-progress --cache cache"
        script = f"mkdir cache; mount -t tmpfs -o size=80k none cache; {RUN} {words}"
        done = subprocess.run(
            ["unshare", "-rm", "bash", "-euc", script],
            cwd=run.folder,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("answers of this run are not kept there") == 1
    assert len(run.output.splitlines()) == 10 * ROWS


def test_ages_and_sizes_are_said_with_their_unit() -> None:
    assert [read_age(said) for said in ("90s", "30m", "12h", "7d", "2w")] == [
        *(90, 1800, 43_200, 7 * DAY_S, 14 * DAY_S)
    ]
    assert [read_size(said) for said in ("500MB", "1.5GB")] == [5 * 10**8, 15 * 10**8]
    for said in ("7", "d", "-1d", "infs", "2gb"):
        with pytest.raises(LLMInvalidRequestError, match="must be a number and"):
            read_age(said)
