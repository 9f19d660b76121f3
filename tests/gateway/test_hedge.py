"""A route whose late requests are asked a second time: configuration, headers, metrics, the page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.test_routes import ASK, BOTH, Front, run
from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.config import Config
from headrace.gateway.route_config import RouteConfig, check_routes
from headrace.net.scripted import ScriptedAnswer
from traffic.play import answer

HEDGED = {**BOTH, "hedge": {"after_ms": 500, "max_extra": 1}}
LATE, QUICK = answer("from a", after_s=20), answer("from b", after_s=0.1)


async def asked(front: Front, **more: object) -> tuple[dict[bytes, bytes], str]:
    body = {"model": "m", **ASK, **more}
    status, headers, answered = await front.ask("/v1/chat/completions", body)
    assert status == 200, answered
    return headers, answered.decode()


@pytest.mark.parametrize("stream", [False, True])
def test_the_answer_is_the_second_ones_and_says_so(stream: bool) -> None:
    async def main() -> None:
        front = Front({"routes": [HEDGED]}, {"a": LATE, "b": QUICK})
        headers, answered = await asked(front, stream=stream)
        assert "from b" in answered
        assert headers[b"x-headrace-hedge"] == b"won"
        assert [name for name, _ in front.asked] == ["a", "b"]
        assert front.clock.monotonic() == pytest.approx(1000.6)

    run(main)


def test_who_is_in_time_is_told_nothing_of_it() -> None:
    async def main() -> None:
        front = Front({"routes": [HEDGED]}, {"a": QUICK, "b": LATE})
        headers, _ = await asked(front)
        assert b"x-headrace-hedge" not in headers

    run(main)


def test_each_outcome_is_counted_and_shown_among_the_recent_calls() -> None:
    async def main() -> None:
        front = Front({"routes": [HEDGED]}, {"a": LATE, "b": QUICK})
        await asked(front)
        front.script["b"] = ScriptedAnswer(fault="hang")
        await asked(front)
        await asked(front, store=True)
        _, _, metrics = await front.ask("/metrics")
        counted = [line for line in metrics.decode().splitlines() if "hedges_total{" in line]
        assert sorted(line.split('outcome="')[1] for line in counted) == [
            'lost"} 1',
            'not_allowed"} 1',
            'won"} 1',
        ]
        recent = front.gateway.history.snapshot(front.clock.monotonic()).recent
        assert [call.hedge for call in recent] == ["won", "lost", "not_allowed"]
        assert [call.attempts for call in recent] == [2, 2, 1]

    run(main)


def test_without_the_section_or_with_it_off_nobody_is_asked_twice() -> None:
    async def main() -> None:
        for route in (BOTH, {**BOTH, "hedge": {"enabled": False, "after_ms": 500}}):
            front = Front({"routes": [route]}, {"a": LATE, "b": QUICK})
            assert await front.text() == "from a"
            assert [name for name, _ in front.asked] == ["a"]

    run(main)


def test_a_response_in_the_background_is_asked_once() -> None:
    async def main() -> None:
        front = Front({"routes": [HEDGED]}, {"a": LATE, "b": QUICK})
        body = {"model": "m", "input": "hi", "background": True}
        status, _, kept = await front.ask("/v1/responses", body)
        assert status == 200
        path = f"/v1/responses/{json.loads(kept)['id']}"
        while json.loads(kept)["status"] in ("queued", "in_progress"):
            await front.clock.sleep(1)
            _, _, kept = await front.ask(path)
        assert [name for name, _ in front.asked] == ["a"]
        await front.ask("/v1/responses", {"model": "m", "input": "hi"})
        assert [name for name, _ in front.asked] == ["a", "a", "b"]

    run(main)


@pytest.mark.parametrize(
    ("hedge", "place"),
    [
        ({"after_p": 95}, "hedge.after_p"),
        ({"after_ms": 0}, "hedge.after_ms"),
        ({"max_extra": 0}, "hedge.max_extra"),
        ({"min_samples": 5}, "hedge.min_samples"),
        ({"afterp": 0.9}, "afterp"),
    ],
)
def test_what_is_wrong_with_it_is_told_by_its_place(hedge: dict[str, Any], place: str) -> None:
    with pytest.raises(LLMInvalidRequestError, match=place):
        from_plain({"routes": [{**BOTH, "hedge": hedge}]}, Config)


def test_one_backend_alone_is_hedged_only_where_it_is_said_so() -> None:
    alone = {"name": "m", "backends": [{"backend": "a"}]}
    route = from_plain({**alone, "hedge": {}}, RouteConfig)
    with pytest.raises(LLMInvalidRequestError, match=r"same_backend.*routes\[0\].hedge"):
        check_routes([route], [], ["a"])

    async def main() -> None:
        answers = iter([LATE, QUICK])
        route = {**alone, "hedge": {"same_backend": True, "after_ms": 500, "max_extra": 1}}
        front = Front({"routes": [route]}, {"a": lambda _: next(answers)})
        assert await front.text() == "from b"

    run(main)
