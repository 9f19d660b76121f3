"""Reads what an engine tells about itself into one form, whichever engine it is.

A page of metrics in Prometheus' text format, or Ollama's list of what it has loaded
(https://github.com/ollama/ollama/blob/main/docs/api.md#list-running-models). ``engine_names`` has
the names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire import json as wire_json
from headrace.wire.engine_names import ENGINES, FIELDS, EngineNames, Values
from headrace.wire.prometheus_text import Chosen

_SHARES = {"cache_usage", "prefix_hit_rate"}
_FRACTIONS = {"batch_size", *_SHARES}
_MARKS = tuple(engine.known_by for engine in ENGINES if engine.known_by is not None)
_CHOSEN = Chosen({*_MARKS, *(name for engine in ENGINES for name in engine.names())})


def read_engine_metrics(page: bytes) -> EngineMetrics | None:
    """What the engine behind ``page`` tells; ``None`` where it is none that we know."""
    if page.lstrip()[:1] == b"{":
        return _ollama(page)
    values: dict[str, list[float]] = {}
    for line in _CHOSEN.read(page):
        values.setdefault(line.name, []).append(line.value)
    for names in ENGINES:
        if names.known_by is None or names.known_by in values:
            told = _told(names, values)
            if told:
                return EngineMetrics(engine=names.engine, **told)
    return None


def _told(names: EngineNames, values: Values) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for field in FIELDS:
        found = (figure.of(values) for figure in names.named(field))
        value = next((each for each in found if each is not None), None)
        if value is None or value < 0:
            continue
        if field in _SHARES:
            value = min(value, 1.0)
        told[field] = value if field in _FRACTIONS else int(value)
    if names.running_holds_queued and "running" in told:
        told["running"] = max(0, told["running"] - told.get("queued", 0))
    return told


def _ollama(page: bytes) -> EngineMetrics | None:
    try:
        told = wire_json.decode_reply(page)
    except LLMBadResponseError:
        return None
    models = told.get("models") if isinstance(told, Mapping) else None
    if not isinstance(models, list):
        return None
    names = [model.get("name") for model in models if isinstance(model, Mapping)]
    return EngineMetrics(
        engine="ollama", loaded=tuple(name for name in names if isinstance(name, str))
    )
