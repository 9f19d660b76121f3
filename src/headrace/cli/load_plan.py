"""The plan that the flags of ``headrace load`` mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from attrs import evolve

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.load import (
    Arrivals,
    Closed,
    Constant,
    Kind,
    LoadPlan,
    Poisson,
    Scenario,
    Scenarios,
)

_PLAIN = {
    "model": "model",
    "kind": "kind",
    "requests": "requests",
    "duration": "duration_s",
    "seed": "seed",
    "timeout": "timeout_s",
    "key_env": "key_env",
    "records": "records",
}
_REQUESTS, _CONCURRENCY = 100, 10


def plans_of(flags: Mapping[str, Any]) -> list[LoadPlan]:
    """One plan; or one for each scenario, where all are wanted."""
    given = {name: value for name, value in flags.items() if value is not None}
    plan = _begun(given)
    changed: dict[str, Any] = {ours: given[flag] for flag, ours in _PLAIN.items() if flag in given}
    _one_of("--kind", changed.get("kind"), get_args(Kind))
    arrivals = _arrivals(given)
    if arrivals is not None:
        changed["arrivals"] = arrivals
    if "config" not in given and not {"requests", "duration"} & given.keys():
        changed["requests"] = _REQUESTS
    plan = evolve(plan, **changed)
    scenario = given.get("scenario")
    if scenario is None:
        return [plan]
    known = get_args(Scenario)
    _one_of("--scenario", scenario, (*known, "all"))
    return [
        evolve(plan, workload=Scenarios(name=name))
        for name in (known if scenario == "all" else (scenario,))
    ]


def _begun(given: Mapping[str, Any]) -> LoadPlan:
    """The plan of the file, where there is one, with the URL that was given."""
    config: Path | None = given.get("config")
    if config is None:
        if "url" not in given:
            raise LLMInvalidRequestError(
                "no target: give its URL (http://127.0.0.1:8000) or a plan (--config)", param="url"
            )
        return LoadPlan(url=given["url"])
    from headrace.contracts.convert import from_yaml

    try:
        text = config.read_text()
    except OSError as error:
        raise LLMInvalidRequestError(
            f"--config is {str(config)!r}, which cannot be read: {error.strerror}"
        ) from error
    plan = from_yaml(text, LoadPlan)
    return evolve(plan, url=given["url"]) if "url" in given else plan


def _arrivals(given: Mapping[str, Any]) -> Arrivals | None:
    if "rate" in given:
        return (
            Constant(rate=given["rate"])
            if given.get("arrivals") == "constant"
            else Poisson(rate=given["rate"])
        )
    if "concurrency" in given or "config" not in given:
        return Closed(concurrency=given.get("concurrency", _CONCURRENCY))
    return None


def _one_of(flag: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise LLMInvalidRequestError(f"{flag} is {value!r}; known: {', '.join(known)}")
