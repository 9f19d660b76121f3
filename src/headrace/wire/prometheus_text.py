"""Reads chosen metrics from a page in Prometheus' text format (0.0.4) or OpenMetrics.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/. A server's page has
thousands of lines, most of them histograms, and is read beside a measurement: so one search finds
the lines of the chosen names and nothing else is looked at. ``numbers.prometheus`` writes ours.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import isfinite
from typing import Literal, TypeAlias

from attrs import frozen

MetricKind: TypeAlias = Literal["gauge", "counter"]


@frozen
class MetricValue:
    """One line; ``labels`` as it stands there, between the braces."""

    name: str
    labels: str
    value: float


class Chosen:
    """The lines of the metrics called ``names``."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = tuple(names)
        alternatives = "|".join(re.escape(n) for n in sorted(self._names, key=len, reverse=True))
        # A label's value may hold any character, a quote behind a backslash.
        labels = r'(?:\{((?:[^"}\n]|"(?:[^"\\\n]|\\.)*")*)\})?'
        self._lines = re.compile(rf"^({alternatives}){labels}[ \t]+(\S+)".encode(), re.MULTILINE)
        self._kinds = re.compile(rf"^# TYPE ({alternatives})[ \t]+(\w+)".encode(), re.MULTILINE)

    def read(self, page: bytes) -> list[MetricValue]:
        """What stands there now; lines whose value is no finite number are left out."""
        found: list[MetricValue] = []
        if not self._names:
            return found
        for name, labels, text in self._lines.findall(page):
            try:
                value = float(text)
            except ValueError:
                continue
            if isfinite(value):  # NaN is how Prometheus says that there is no value
                found.append(MetricValue(name.decode(), labels.decode("utf-8", "replace"), value))
        return found

    def kinds(self, page: bytes) -> dict[str, MetricKind]:
        """Which of them the page calls counters, and which gauges."""
        if not self._names:
            return {}
        return {
            name.decode(): "counter" if kind == b"counter" else "gauge"
            for name, kind in self._kinds.findall(page)
            if kind in (b"counter", b"gauge", b"untyped", b"unknown")
        }
