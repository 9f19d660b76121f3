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
    Gamma,
    Kind,
    LoadPlan,
    Poisson,
    Prompts,
    Scenario,
    Scenarios,
    Synthetic,
    Workload,
)

_PLAIN = {
    "model": "model",
    "kind": "kind",
    "requests": "requests",
    "duration": "duration_s",
    "warmup": "warmup_s",
    "warmup_requests": "warmup_requests",
    "cooldown": "cooldown_s",
    "drain": "drain_s",
    "timeout": "timeout_s",
    "at_most": "at_most",
    "most_errors": "most_errors",
    "most_error_share": "most_error_share",
    "workers": "workers",
    "seed": "seed",
    "temperature": "temperature",
    "output_exact": "output_exact",
    "extra_body": "extra_body",
    "key_env": "key_env",
    "insecure": "insecure",
    "ca_file": "ca_file",
    "records": "records",
    "metrics_url": "metrics_url",
    "tokenizer": "tokenizer",
}
"""Flags that are fields of the plan as they are."""

_ONE_OF_RATE = ("rate", "burst", "steps", "trace")
_SYNTHETIC = ("input_tokens", "shared_prefix", "turns", "images")
_REQUESTS, _CONCURRENCY = 100, 10
_LAWS = ("poisson", "constant", "gamma")


def plans_of(flags: Mapping[str, Any]) -> list[tuple[str, LoadPlan]]:
    """The plan, with the folder of its report; one for each scenario, where all are wanted.

    LLMInvalidRequestError says which flag is wrong, and what would be right.
    """
    try:
        return _plans(flags)
    except ValueError as error:
        raise LLMInvalidRequestError(str(error)) from error


def _plans(flags: Mapping[str, Any]) -> list[tuple[str, LoadPlan]]:
    given = {
        name: value for name, value in flags.items() if value is not None and value is not False
    }
    plan = _begun(given)
    changed: dict[str, Any] = {ours: given[flag] for flag, ours in _PLAIN.items() if flag in given}
    _one_of("--kind", changed.get("kind"), get_args(Kind))
    arrivals = _arrivals(given, plan)
    if arrivals is not None:
        changed["arrivals"] = arrivals
    workload = _workload(given)
    if workload is not None:
        changed["workload"] = workload
    if "whole" in given:
        changed["stream"] = False
    if "no_kernel_times" in given:
        changed["kernel_times"] = False
    if "header" in given:
        changed["headers"] = plan.headers + tuple(_header(each) for each in given["header"])
    if "metric" in given:
        changed["metrics"] = plan.metrics + tuple(given["metric"])
    if "slo" in given:
        from headrace.numbers.promises import parse

        changed["promises"] = tuple(parse(each) for each in given["slo"])
    if "preset" in given:
        from headrace.bench.load.presets import preset

        changed["promises"] = changed.get("promises", ()) + preset(given["preset"])
    if "find" in given:
        changed.setdefault("arrivals", Poisson(rate=1.0))
        _no_fixed_load(given)
    bounded = {"requests", "duration", "trace", "steps"} & given.keys()
    if not bounded and plan.requests is None and plan.duration_s is None:
        changed["requests"] = _REQUESTS
    plan = evolve(plan, **changed)
    if given.get("scenario") != "all":
        return [("", plan)]
    return [(name, evolve(plan, workload=Scenarios(name=name))) for name in get_args(Scenario)]


def _no_fixed_load(given: Mapping[str, Any]) -> None:
    """A search sets the rate and the number of requests itself."""
    fixed = (
        "concurrency",
        "rate",
        "burst",
        "ramp",
        "steps",
        "trace",
        "requests",
        "duration",
        "think",
    )
    for name in fixed:
        if name in given:
            raise LLMInvalidRequestError(
                f"--{name} and --find: a search sets the load itself; bound it with --find-from, "
                "--find-to and --find-longest",
                param=name,
            )
    if given.get("scenario") == "all":
        raise LLMInvalidRequestError("--scenario all and --find: name one of the scenarios")


def _begun(given: Mapping[str, Any]) -> LoadPlan:
    """The plan of the file, where there is one, with the URL that was given."""
    config: Path | None = given.get("config")
    if config is None:
        if "url" not in given:
            raise LLMInvalidRequestError(
                "no target: give its URL (http://127.0.0.1:8000) or a plan (--config)", param="url"
            )
        return LoadPlan(url=given["url"], arrivals=Closed(concurrency=_CONCURRENCY))
    from headrace.contracts.convert import from_yaml

    try:
        text = config.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise LLMInvalidRequestError(
            f"--config is {str(config)!r}, which cannot be read: {error}"
        ) from error
    try:
        plan = from_yaml(text, LoadPlan)
    except (LLMInvalidRequestError, ValueError) as error:
        raise LLMInvalidRequestError(f"--config is {str(config)!r}: {error}") from error
    return evolve(plan, url=given["url"]) if "url" in given else plan


def _arrivals(given: Mapping[str, Any], plan: LoadPlan) -> Arrivals | None:
    from headrace.bench.load.flags import read_burst, read_ramp, read_steps, read_trace

    ways = [name for name in (*_ONE_OF_RATE, "concurrency") if name in given]
    if "ramp" in given and ways != ["concurrency"]:
        ways.append("ramp")
    if len(ways) > 1:
        said = " and ".join(f"--{name}" for name in ways)
        raise LLMInvalidRequestError(f"{said} are different ways to arrive; give one of them")
    law = given.get("arrivals", "gamma" if "burstiness" in given else "poisson")
    _one_of("--arrivals", law, _LAWS)
    if "rate" in given:
        return _at_rate(given["rate"], law, given.get("burstiness", 1.0))
    for flag in ("arrivals", "burstiness"):
        if flag in given and not {"ramp", "steps"} & given.keys():
            raise LLMInvalidRequestError(f"--{flag} says how a rate comes; give --rate too")
    poisson = law == "poisson"
    if "burst" in given:
        return read_burst(given["burst"])
    if "steps" in given:
        return read_steps(given["steps"], poisson=poisson)
    if "trace" in given:
        return read_trace(given["trace"], given.get("speed", 1.0))
    if "ramp" in given and "concurrency" not in given:
        return read_ramp(given["ramp"], poisson=poisson)
    return _closed(given, plan)


def _at_rate(rate: float, law: str, burstiness: float) -> Arrivals:
    if not 0 < rate < float("inf"):
        raise LLMInvalidRequestError(f"--rate is {rate:g}, must be above 0", param="rate")
    if law == "gamma":
        if not burstiness > 0:
            raise LLMInvalidRequestError(f"--burstiness is {burstiness:g}, must be above 0")
        return Gamma(rate=rate, burstiness=burstiness)
    return Constant(rate=rate) if law == "constant" else Poisson(rate=rate)


def _closed(given: Mapping[str, Any], plan: LoadPlan) -> Arrivals | None:
    changed: dict[str, Any] = {}
    if "concurrency" in given:
        changed["concurrency"] = given["concurrency"]
        if "ramp" in given:
            changed["ramp_s"] = _seconds("--ramp", given["ramp"])
    if "think" in given:
        changed["think_s"] = given["think"]
    if not changed:
        return None
    before = plan.arrivals if isinstance(plan.arrivals, Closed) else Closed()
    return evolve(before, **changed)


def _seconds(flag: str, text: str) -> float:
    try:
        return float(text.removesuffix("s"))
    except ValueError as error:
        raise LLMInvalidRequestError(
            f"{flag} is {text!r}; with --concurrency it is the seconds over which callers begin, "
            "as 10s"
        ) from error


def _workload(given: Mapping[str, Any]) -> Workload | None:
    from headrace.bench.load.flags import read_length

    output = given.get("output_tokens")
    length = None if output is None else read_length(output, "--output-tokens")
    scenario = given.get("scenario")
    made_up = [name for name in _SYNTHETIC if name in given]
    if sum((scenario is not None, "prompts" in given, bool(made_up))) > 1:
        raise LLMInvalidRequestError(
            "--scenario, --prompts and --input-tokens (with --shared-prefix, --turns and --images) "
            "are different things to ask; give one of them"
        )
    if "prompts" in given:
        return Prompts(path=given["prompts"], output=length, shuffle="shuffle" in given)
    if made_up or length is not None:
        plain = Synthetic()
        return Synthetic(
            input=read_length(given["input_tokens"]) if "input_tokens" in given else plain.input,
            output=length or plain.output,
            prefix_tokens=given.get("shared_prefix", 0),
            turns=given.get("turns", 1),
            images=given.get("images", 0),
        )
    if scenario is None or scenario == "all":
        return None
    _one_of("--scenario", scenario, (*get_args(Scenario), "all"))
    return Scenarios(name=scenario)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise LLMInvalidRequestError(f"--header is {name.strip()!r} without a value; NAME: VALUE")
    return name.strip(), value.strip()


def _one_of(flag: str, value: str | None, known: tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise LLMInvalidRequestError(f"{flag} is {value!r}; known: {', '.join(known)}")
