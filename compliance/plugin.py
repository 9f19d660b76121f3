"""A pytest plugin: leaves out what the plan names, and writes down how every test ended.

It runs in a suite's own environment, so it knows nothing but pytest and the standard library.
``COMPLIANCE_PLAN`` names a JSON file (``left_out``: a list of rules; ``results``: where to write).
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

_WORST = ("passed", "skipped", "failed")


class _Notes:
    def __init__(self, plan: dict[str, Any]) -> None:
        self.plan = plan
        self.outcomes: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        self.skips: dict[str, str] = {}
        self.files: dict[str, str] = {}
        self.used: set[int] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        gone = []
        for item in items:
            self.files[item.nodeid] = _file(item)
            for number, rule in enumerate(self.plan["left_out"]):
                if _fits(item, rule):
                    self.used.add(number)
                    self.left_out[item.nodeid] = rule["reason"]
                    gone.append(item)
                    break
        if gone:
            config.hook.pytest_deselected(items=gone)
            items[:] = [item for item in items if item.nodeid not in self.left_out]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        before = self.outcomes.get(report.nodeid, "passed")
        self.outcomes[report.nodeid] = max(before, report.outcome, key=_WORST.index)
        if report.skipped and isinstance(report.longrepr, tuple):
            self.skips[report.nodeid] = str(report.longrepr[2])

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.outcomes[report.nodeid] = "failed"

    def pytest_sessionfinish(self) -> None:
        rules = self.plan["left_out"]
        said = {
            "outcomes": self.outcomes,
            "left_out": self.left_out,
            "skips": self.skips,
            "files": self.files,
            "idle_rules": [rule for i, rule in enumerate(rules) if i not in self.used],
        }
        Path(self.plan["results"]).write_text(json.dumps(said), encoding="utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Read the plan and take part."""
    plan = json.loads(Path(os.environ["COMPLIANCE_PLAN"]).read_text(encoding="utf-8"))
    config.pluginmanager.register(_Notes(plan), "compliance-notes")


def _fits(item: pytest.Item, rule: dict[str, Any]) -> bool:
    if _file(item) != rule["file"]:
        return False
    name = getattr(item, "originalname", item.name)
    if not any(fnmatchcase(name, pattern) for pattern in rule["tests"]):
        return False
    callspec = getattr(item, "callspec", None)
    return not rule["cases"] or (
        callspec is not None and callspec.id.endswith(tuple(rule["cases"]))
    )


def _file(item: pytest.Item) -> str:
    """The test's file by its last two names; a node id is relative to whatever pytest roots in."""
    return f"{item.path.parent.name}/{item.path.name}"
