"""A workload says the same for the same seed, of the lengths that were asked for."""

from __future__ import annotations

import struct
import zlib
from base64 import b64decode
from collections import Counter
from itertools import islice
from math import exp, log
from random import Random
from statistics import fmean, median, pstdev

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.bench.load.scenarios import CONVERSATIONS
from headrace.bench.load.synthetic import draw
from headrace.bench.load.workload import asked, conversations
from headrace.contracts.load import Asked, Kind, Length, LoadPlan, Scenario, Scenarios, Synthetic

PLAN = LoadPlan(url="http://127.0.0.1:1")
TEXT: tuple[Kind, ...] = ("chat", "responses", "messages")


class Halves:
    """A tokenizer of the test's own: words up to four letters are one token, longer ones two."""

    source = "halves"
    counted = True

    def count(self, text: str) -> int:
        words = text.split()
        return len(words) + sum(len(word) > 4 for word in words) + text.count("\n")

    def close(self) -> None:
        pass


def take(n: int, plan: LoadPlan, tokenizer: Halves | None = None) -> list[Asked]:
    return list(islice(asked(plan, tokenizer), n))


def content(one: Asked) -> str:
    return str(one.messages[0]["content"])


@pytest.mark.parametrize("name", ["short", "medium", "long"])
def test_a_scenario_has_twenty_conversations_and_limits_their_answers(name: Scenario) -> None:
    found = take(400, evolve(PLAN, workload=Scenarios(name=name)))
    assert len({str(one.messages) for one in found}) == 20 == len(CONVERSATIONS[name])
    assert {one.output_tokens for one in found} == {{"short": 32, "medium": 128, "long": 256}[name]}
    assert {one.scenario for one in found} == {name}
    assert all(one.messages[-1]["role"] == "user" for one in found)


def test_the_mixture_is_half_short_and_three_tenths_medium() -> None:
    n = 4000
    found = Counter(one.scenario for one in take(n, evolve(PLAN, workload=Scenarios())))
    for name, part in (("short", 0.5), ("medium", 0.3), ("long", 0.2)):
        assert found[name] == pytest.approx(n * part, abs=4 * (n * part * (1 - part)) ** 0.5)


@pytest.mark.parametrize("workload", [Scenarios(), Synthetic(turns=2, prefix_tokens=9, prefixes=3)])
@pytest.mark.parametrize(
    "kind", ["chat", "completions", "responses", "messages", "embeddings", "rerank"]
)
def test_every_kind_is_the_same_for_its_seed_and_is_shared_by_workers(
    workload: Scenarios | Synthetic, kind: Kind
) -> None:
    plan = evolve(PLAN, workload=workload, kind=kind, seed=3)
    whole = take(60, plan)
    assert whole == take(60, plan)
    assert whole != take(60, evolve(plan, seed=4))
    by_conversation = list(conversations(whole))
    for part in range(3):
        mine = list(islice(conversations(asked(plan, part=part, parts=3)), 8))
        assert mine == by_conversation[part::3][:8]
    for one in whole:
        assert bool(one.messages) == (kind in TEXT)
        assert (one.prompt is None) == (kind in TEXT)
        assert (one.output_tokens is None) == (kind in ("embeddings", "rerank"))
        assert len(one.documents) == (8 if kind == "rerank" else 0)


@given(
    tokens=st.integers(1, 400),
    prefix=st.integers(0, 50),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["chat", "completions"]),
)
def test_made_up_text_counts_what_was_asked_for(
    tokens: int, prefix: int, seed: int, kind: Kind
) -> None:
    workload = Synthetic(input=Length(mean=tokens), prefix_tokens=prefix)
    plan = evolve(PLAN, workload=workload, kind=kind, seed=seed)
    wanted = max(tokens, prefix + 1) if prefix else tokens
    for one in take(5, plan, Halves()):
        text = one.prompt if kind == "completions" else content(one)
        assert text is not None
        assert one.input_tokens == Halves().count(text) == wanted
        assert one.counted


def test_without_a_tokenizer_the_length_is_an_estimate_and_says_so() -> None:
    (one,) = take(1, evolve(PLAN, workload=Synthetic(input=Length(mean=50))))
    assert (one.input_tokens, len(content(one).split()), one.counted) == (50, 50, False)


def test_no_two_prompts_begin_alike_unless_they_are_meant_to() -> None:
    found = take(3000, evolve(PLAN, workload=Synthetic(input=Length(mean=30))))
    assert len({" ".join(content(one).split()[:2]) for one in found}) == 3000
    grouped = Synthetic(input=Length(mean=30), prefix_tokens=20, prefixes=4)
    found = take(400, evolve(PLAN, workload=grouped))
    assert len({" ".join(content(one).split()[:20]) for one in found}) == 4
    assert len({content(one) for one in found}) == 400
    assert all(len(content(one).split()) == 30 for one in found)


def test_turns_follow_one_another_and_say_only_what_is_new() -> None:
    found = take(9, evolve(PLAN, workload=Synthetic(turns=3, prefix_tokens=5)))
    assert [(one.conversation, one.turn, one.turns) for one in found] == [
        (number, turn, 3) for number in range(3) for turn in range(3)
    ]
    assert all(len(one.messages) == 1 for one in found)
    assert len({content(one) for one in found}) == 9


def test_a_picture_is_a_png_of_noise_that_nobody_has_seen() -> None:
    found = take(2, evolve(PLAN, workload=Synthetic(images=2, image_px=8)), Halves())
    urls = [part["image_url"]["url"] for one in found for part in one.messages[0]["content"][1:]]  # type: ignore[index]
    assert len(set(urls)) == 4
    for url in urls:
        head, _, data = url.partition(",")
        assert head == "data:image/png;base64"
        png = b64decode(data)
        assert png.startswith(b"\x89PNG\r\n\x1a\n")
        at, found_chunks = 8, {}
        while at < len(png):
            size, name = struct.unpack(">I4s", png[at : at + 8])
            body = png[at + 8 : at + 8 + size]
            (checksum,) = struct.unpack(">I", png[at + 8 + size : at + 12 + size])
            assert checksum == zlib.crc32(name + body)
            found_chunks[name] = body
            at += 12 + size
        assert struct.unpack(">IIBBBBB", found_chunks[b"IHDR"]) == (8, 8, 8, 2, 0, 0, 0)
        assert len(zlib.decompress(found_chunks[b"IDAT"])) == 8 * (1 + 8 * 3)
    assert not any(one.counted for one in found)


def test_pictures_are_refused_where_nothing_takes_them() -> None:
    with pytest.raises(ValueError, match="images must be 0 for completions, and is 1"):
        take(1, evolve(PLAN, workload=Synthetic(images=1), kind="completions"))


@pytest.mark.parametrize(
    ("workload", "complaint"),
    [
        (Synthetic(turns=0), "turns must be 1 or more, and is 0"),
        (Synthetic(prefixes=0), "prefixes must be 1 or more"),
        (Synthetic(prefix_tokens=-1), "prefix_tokens must be 0 or more, and is -1"),
    ],
)
def test_what_cannot_be_made_up_is_refused_before_the_first_request(
    workload: Synthetic, complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        asked(evolve(PLAN, workload=workload))


def test_lengths_have_the_distribution_that_was_asked_for() -> None:
    random, n = Random(1), 20_000
    normal = [draw(Length(shape="normal", mean=500, spread=50), random) for _ in range(n)]
    assert fmean(normal) == pytest.approx(500, abs=4 * 50 / n**0.5)
    assert pstdev(normal) == pytest.approx(50, rel=4 / (2 * n) ** 0.5)
    lognormal = [draw(Length(shape="lognormal", mean=500, spread=0.5), random) for _ in range(n)]
    # exp(mu) is the median, and the mean is wanted to be 500.
    assert median(lognormal) == pytest.approx(exp(log(500) - 0.125), rel=0.02)
    assert fmean(lognormal) == pytest.approx(500, rel=4 * (exp(0.25) - 1) ** 0.5 / n**0.5)
    uniform = [draw(Length(shape="uniform", least=3, most=7), random) for _ in range(n)]
    for value, times in Counter(uniform).items():
        assert 3 <= value <= 7
        assert times == pytest.approx(n / 5, abs=4 * (n * 0.16) ** 0.5)
    cut = [
        draw(Length(shape="normal", mean=5, spread=9, least=2, most=6), random) for _ in range(n)
    ]
    assert (min(cut), max(cut)) == (2, 6)
