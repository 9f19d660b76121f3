"""The example of Prometheus and Grafana asks for what ``/metrics`` has: the names, and their labels."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.record import CallRecord, Hedge, Timeline
from headrace.contracts.responses import Usage
from headrace.numbers.live import Tally
from headrace.numbers.prometheus import write_metrics

DOCS = Path(__file__).parent.parent / "docs"
EXAMPLE = DOCS / "monitoring"
NAME = re.compile(r"\b(?:vllm:|gen_ai_(?:server|client)_|headrace_)[a-z0-9_]+")
SELECTED = re.compile(r"([a-z0-9_:]+)\{([^}]*)\}")
LABEL = re.compile(r'([a-z_]+)\s*(?:=~|!~|!=|=)\s*"')
BY = re.compile(r"\bby\s*\(([^)]*)\)")
# What Prometheus puts to every sample.
SCRAPE = {"job", "instance"}


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """The labels of each sample that a gateway exports which has answered and failed."""
    instants = Timeline(
        anchor=0.0,
        wall_anchor=0.0,
        queued=0.0,
        admitted=1.0,
        sent=1.0,
        first_byte=2.0,
        first_token=2.0,
        last_token=3.0,
        done=3.0,
    )
    answered = CallRecord(
        call_id="c",
        operation="chat",
        timeline=instants,
        requested_model="m",
        model="m",
        backend="m",
        provider="openai",
        usage=Usage(prompt_tokens=7, completion_tokens=11),
        price_usd=Decimal("0.01"),
        finish_reason="stop",
        status=200,
        hedge=Hedge(outcome="won", after_s=0.5),
    )
    tally = Tally(0.0, ("m",))
    tally.add(answered)
    labels: dict[str, set[str]] = {}
    engine = EngineMetrics(
        engine="vllm",
        running=1,
        queued=2,
        batch_size=3.0,
        batch_occupancy=0.4,
        cache_usage=0.5,
        prefix_hit_rate=0.6,
        prompt_tokens=7,
        completion_tokens=8,
    )
    page = write_metrics(tally, 9.0, {"m": [engine]})
    for family in text_string_to_metric_families(page.decode()):
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    return labels


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((EXAMPLE / "dashboard.json").read_text())["panels"]
    return found


def queries() -> list[Any]:
    """Every query of the dashboard and every alert's, with what it is for."""
    alerts = yaml.safe_load((EXAMPLE / "alerts.yml").read_text())["groups"]
    return [
        *(
            pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
            for panel in panels()
            for target in panel["targets"]
        ),
        *(pytest.param(rule["expr"], id=rule["alert"]) for g in alerts for rule in g["rules"]),
    ]


@pytest.mark.parametrize("query", queries())
def test_a_query_asks_for_metrics_and_labels_that_there_are(exported, query):
    names = set(NAME.findall(query))
    assert names or query.startswith("up{"), query
    assert names <= set(exported), names - set(exported)
    for name, selectors in SELECTED.findall(query):
        there = exported.get(name, set()) | SCRAPE
        assert set(LABEL.findall(selectors)) <= there, (name, selectors)
    there = set.union(SCRAPE, *(exported[name] for name in names))
    for group in BY.findall(query):
        assert {label.strip() for label in group.split(",")} <= there, group


def test_the_dashboards_variables_ask_for_metrics_that_there_are(exported):
    dashboard = json.loads((EXAMPLE / "dashboard.json").read_text())
    asked = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    assert len(asked) == 2
    for query in asked:
        (name,) = NAME.findall(query)
        assert name in exported


def test_the_dashboards_panels_do_not_lie_upon_one_another():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("page", ["operations.md", "monitoring.md"])
def test_every_metric_that_a_page_names_is_there(exported, page):
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in exported}
    named = set(NAME.findall((DOCS / page).read_text()))
    assert named
    assert named <= families | set(exported), named - families - set(exported)
