"""What a step may use of its engine: in which way it is asked, and what it has to go without."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve, fields, fields_dict, frozen

from headrace.backends.capabilities import capabilities_of, lacking
from headrace.backends.fit import Fit
from headrace.backends.managed.opening import row_of_engine
from headrace.backends.providers import split_model
from headrace.backends.row import Provider
from headrace.backends.structured import mode_of
from headrace.chains.nodes import Step, asked_schema_of
from headrace.client.requests import as_request
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.requests import LLMChatParams, LLMRequest, ResponseMode

_IN_WORDS: Mapping[ResponseMode, str] = {
    "schema": "guided by the engine",
    "tool": "a call that the model has to make",
    "json": "JSON mode, instructed and judged",
    "prompt": "instructed and judged",
}
_EVERYWHERE = {"max_tokens", "temperature", "top_p", "priority", "provider_options"}
_UNSET: tuple[object, ...] = (None, (), {})
_NOT_WITHOUT = ("tools",)
"""What a step's work hangs on: without it there is another answer, and not a plainer one."""


@frozen(kw_only=True)
class Ability:
    """What one step has of its engine.

    ``mode`` is the way in which an answer that meets its schema is asked for, None where there is no
    schema. ``left_out`` are settings of its sampling that the engine cannot carry out, each with the
    reason: it is asked without them. ``ignored`` are those that the engine takes and does nothing
    with.
    """

    provider: str
    model: str
    mode: ResponseMode | None
    capabilities: BackendCapabilities
    left_out: Mapping[str, str]
    ignored: tuple[str, ...]
    sampling: LLMChatParams

    @property
    def schema(self) -> str | None:
        """How an answer is had that meets the schema, in words."""
        return None if self.mode is None else _IN_WORDS[self.mode]


def abilities_of(steps: Iterable[Step], engines: Iterable[EngineConfig]) -> dict[str, Ability]:
    """Those of each of ``steps``, by its id; nobody is asked for that.

    Raises LLMCapabilityError for a step that cannot work with its engine.
    """
    known = {each.name: each for each in engines}
    return {step.id: ability_of(step, known) for step in steps}


def ability_of(step: Step, engines: Mapping[str, EngineConfig]) -> Ability:
    """What ``step`` has of its engine, one of ``engines`` by their names or provider/model."""
    row, model = _row_of(step.engine, engines)
    request = _request_of(step, model)
    capabilities = capabilities_of(row, model)
    ignored, unable = Fit(row.name, row).unheeded(request)
    left_out = dict.fromkeys(unable, f"{row.name} has no such setting")
    left_out |= {
        lack.param: f"{model} has no {lack.what}"
        for lack in lacking(request, capabilities)
        if lack.param in fields_dict(LLMChatParams)
    }
    for name in _NOT_WITHOUT:
        if name in left_out:
            raise LLMCapabilityError(
                f"{step.id}.{name} cannot be used: {left_out[name]}; leave them out, or ask another "
                "engine",
                param=f"{step.id}.{name}",
            )
    left_out.pop("response_schema", None)
    return Ability(
        provider=row.name,
        model=model,
        mode=_mode_of(step, request, row, model),
        capabilities=capabilities,
        left_out=left_out,
        ignored=tuple(ignored),
        sampling=_without(step.sampling, left_out),
    )


def may_lack(step: Step) -> bool:
    """Whether ``step`` asks for more than every engine can; what models can do is long to read."""
    said = {
        each.name
        for each in fields(LLMChatParams)
        if getattr(step.sampling, each.name) not in _UNSET
    }
    return bool(step.tools or said - _EVERYWHERE)


def left_out(abilities: Mapping[str, Ability]) -> list[str]:
    """A line for each setting that a step goes without."""
    return [
        f"{step}: {name} is left out: {why}"
        for step, ability in abilities.items()
        for name, why in ability.left_out.items()
    ]


def _row_of(engine: str, engines: Mapping[str, EngineConfig]) -> tuple[Provider, str]:
    config = engines.get(engine)
    return split_model(engine) if config is None else (row_of_engine(config), config.model)


def _request_of(step: Step, model: str) -> LLMRequest:
    request = as_request("", model, step.sampling, {})
    if step.output is not None:
        schema = dict(asked_schema_of(step.output))
        request = evolve(request, response_schema=schema, response_mode="auto")
    return evolve(request, tools=tuple(each.spec for each in step.tools))


def _mode_of(step: Step, request: LLMRequest, row: Provider, model: str) -> ResponseMode | None:
    if step.output is not None and step.tools:
        return "prompt"  # no engine holds to a schema what may be a call as well
    return mode_of(request, row, model)


def _without(sampling: LLMChatParams, names: Iterable[str]) -> LLMChatParams:
    unset = {name: fields_dict(LLMChatParams)[name].default for name in names}
    return evolve(sampling, **unset) if unset else sampling  # type: ignore[arg-type]
