"""A server that stands still now and then: what callers at the intended time see is the headline.

The truth: frozen for 0.5 s in every 2 s, of the requests that come evenly a quarter waits, between 0
and 0.5 s; so the 95th percentile waits 0.4 s. A generator that asks only when it is
answered hides that (coordinated omission).
"""

from __future__ import annotations

import pytest

from headrace.bench.load.run import load
from headrace.contracts.load import Closed, Constant, Length, LoadPlan, Synthetic
from headrace.contracts.load_report import LoadReport
from headrace.testing import mock_server

FREEZE_MS = 500.0


@pytest.fixture(scope="module")
def reports() -> dict[str, LoadReport]:
    found = {}
    with mock_server(
        ttft="5ms", itl="0ms", tokens="1", freeze={"lasts": "500ms", "every": "2s"}
    ) as mock:
        plan = LoadPlan(
            url=mock.url,
            workload=Synthetic(input=Length(mean=8), output=Length(mean=1)),
            requests=160,
        )
        from attrs import evolve

        found["open"] = load(evolve(plan, arrivals=Constant(rate=40.0)))
        found["capped"] = load(evolve(plan, arrivals=Constant(rate=40.0), at_most=4))
        found["closed"] = load(evolve(plan, arrivals=Closed(concurrency=1)))
    return found


def ttft(report: LoadReport, name: str, *, service: bool = False) -> float:
    figures = report.figures
    d = figures.service_ttft if service else figures.ttft
    assert d is not None
    value = d.percentiles[name]
    assert value is not None
    return value


def test_an_open_loop_sees_the_whole_standstill(reports: dict[str, LoadReport]) -> None:
    assert not reports["open"].closed_loop
    assert 0.6 * FREEZE_MS <= ttft(reports["open"], "p95") <= 1.5 * FREEZE_MS


def test_a_cap_on_what_is_in_flight_moves_the_wait_into_the_headline_not_out_of_sight(
    reports: dict[str, LoadReport],
) -> None:
    capped = reports["capped"]
    assert 0.6 * FREEZE_MS <= ttft(capped, "p95") <= 1.5 * FREEZE_MS
    # From sending, most of those requests were quick: four waited at the server, the others here.
    assert ttft(capped, "p95", service=True) < 0.6 * ttft(capped, "p95")


def test_a_closed_loop_hides_it_and_says_that_it_is_one(reports: dict[str, LoadReport]) -> None:
    closed = reports["closed"]
    assert closed.closed_loop
    assert ttft(closed, "p95") < 0.2 * FREEZE_MS
    assert any("closed" in d.text or "caller" in d.text for d in closed.trust.doubts)
