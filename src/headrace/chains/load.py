"""Chains from files: a YAML document, or ``package.module:name`` in Python."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path as FilePath
from typing import Any

from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Step
from headrace.client.registry import get_engine_config
from headrace.contracts._yaml import read_yaml
from headrace.contracts.convert import from_plain
from headrace.contracts.engine_entries import entries, plain_entry
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import LLMChatParams

_TOP = ("name", "engines", "models", "steps", "chain")
_OF_A_STEP = (
    "id",
    "engine",
    "user",
    "user_file",
    "system",
    "system_file",
    "input",
    "output",
    "sampling",
    "asks",
    "ask_tokens",
    "repair",
    "timeout_s",
    "mode",
    "batch_retry",
    "max_wait_s",
)
_AS_SAID = ("asks", "ask_tokens", "repair", "timeout_s", "mode", "batch_retry", "max_wait_s")


def load_chain(what: str) -> tuple[Chain, tuple[EngineConfig, ...]]:
    """The chain of ``what``, and the engines that its file describes.

    Those of a chain in Python are the ones that were registered by the time that it was imported.
    Raises LLMInvalidRequestError that names file and field.
    """
    if what.endswith((".yaml", ".yml")):
        return _of_file(FilePath(what))
    found = named(what, "chain")
    if not isinstance(found, Chain):
        raise LLMInvalidRequestError(
            f"{what} is a {type(found).__name__}, must be a Chain", param="chain"
        )
    return found, tuple(get_engine_config(each) for each in found.engines() if "/" not in each)


def named(what: str, field: str) -> Any:
    """What ``package.module:name`` means."""
    module, colon, name = what.partition(":")
    if not colon or not module or not name:
        raise LLMInvalidRequestError(
            f"{field} is {what!r}, must be a .yaml file or package.module:name", param=field
        )
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise LLMInvalidRequestError(f"{field} is {what!r}: {error}", param=field) from error
    return found


def _of_file(path: FilePath) -> tuple[Chain, tuple[EngineConfig, ...]]:
    try:
        text = path.read_text()
    except OSError as error:
        raise LLMInvalidRequestError(f"{path}: {error.strerror}", param="chain") from error
    except UnicodeDecodeError as error:
        raise LLMInvalidRequestError(f"{path} is not UTF-8: {error}", param="chain") from error
    try:
        document = read_yaml(text)
        return _Document(document, path.parent).chain(path.stem)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{path}: {error.message}", param=error.param) from error


class _Document:
    """One YAML chain; ``folder`` is where the files lie that it names."""

    def __init__(self, document: object, folder: FilePath) -> None:
        self._top = _mapping(document, "the file", _TOP)
        self._folder = folder
        self._models = _mapping(self._top.get("models") or {}, "models", None)

    def chain(self, stem: str) -> tuple[Chain, tuple[EngineConfig, ...]]:
        engines = self._engines()
        steps = self._top.get("steps")
        if not isinstance(steps, list) or not steps:
            raise LLMInvalidRequestError("steps must be a list of at least one", param="steps")
        nodes = [self._node(each, f"steps[{i}]") for i, each in enumerate(steps)]
        chain = Chain(self._path(nodes), name=str(self._top.get("name") or stem))
        names = [each.name for each in engines]
        for wanted in chain.engines():
            if wanted not in names and "/" not in wanted:
                near = get_close_matches(wanted, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise LLMInvalidRequestError(
                    f"a step names the engine {wanted!r}; {hint}known: {', '.join(names) or 'none'}"
                    ", or provider/model",
                    param="engine",
                )
        return chain, engines

    def _engines(self) -> tuple[EngineConfig, ...]:
        found = entries(self._top.get("engines") or [], "$.engines")
        return tuple(
            from_plain(plain_entry(entry, where), EngineConfig, path=where)
            for where, entry in found
        )

    def _node(self, said: object, place: str) -> Node | Group:
        try:
            return self._made(said, place)
        except (TypeError, ValueError) as error:  # what a node's own checks say
            raise LLMInvalidRequestError(f"{place}: {error.args[0]}", param=place) from error

    def _made(self, said: object, place: str) -> Node | Group:
        if isinstance(said, Mapping) and "parallel" in said:
            return self._group(said["parallel"], f"{place}.parallel")
        if isinstance(said, Mapping) and "apply" in said:
            one = _mapping(said, place, ("id", "apply", "how", "input", "output", "version"))
            return Apply(
                id=_text(one, "id", place),
                function=named(_text(one, "apply", place), f"{place}.apply"),
                how=one.get("how", "one"),
                input=self._type(one.get("input"), f"{place}.input"),
                output=self._type(one.get("output"), f"{place}.output"),
                version=str(one.get("version", "")),
            )
        if isinstance(said, Mapping) and "branch" in said:
            one = _mapping(said, place, ("id", "branch", "paths", "version"))
            paths = _mapping(one.get("paths"), f"{place}.paths", None)
            return Branch(
                id=_text(one, "id", place),
                choose=named(_text(one, "branch", place), f"{place}.branch"),
                paths={
                    name: self._path(self._several(each, f"{place}.paths.{name}"))
                    for name, each in paths.items()
                },
                version=str(one.get("version", "")),
            )
        if isinstance(said, Mapping) and "join" in said:
            one = _mapping(said, place, ("join", "partial"))
            return Join(id=_text(one, "join", place), partial=bool(one.get("partial", False)))
        return self._step(said, place)

    def _group(self, said: object, place: str) -> Group:
        if not isinstance(said, list) or len(said) < 2:
            raise LLMInvalidRequestError(
                f"{place} must be a list of two paths or more", param=place
            )
        return Group(
            tuple(self._path(self._several(each, f"{place}[{i}]")) for i, each in enumerate(said))
        )

    def _several(self, said: object, place: str) -> list[Node | Group]:
        if isinstance(said, list):
            return [self._node(each, f"{place}[{i}]") for i, each in enumerate(said)]
        return [self._node(said, place)]

    def _path(self, nodes: list[Node | Group]) -> Path:
        path = Path.of(nodes[0])
        for node in nodes[1:]:
            path = path >> node
        return path

    def _step(self, said: object, place: str) -> Step:
        one = _mapping(said, place, _OF_A_STEP)
        user = self._prompt(one, "user", place)
        if user is None:
            raise LLMInvalidRequestError(f"{place}.user is missing", param=f"{place}.user")
        more = {name: one[name] for name in _AS_SAID if name in one}
        return Step(
            id=_text(one, "id", place),
            engine=_text(one, "engine", place),
            user=user,
            system=self._prompt(one, "system", place),
            input=self._type(one.get("input"), f"{place}.input"),
            output=self._type(one.get("output"), f"{place}.output"),
            sampling=from_plain(one.get("sampling") or {}, LLMChatParams),
            **more,
        )

    def _prompt(self, one: Mapping[str, Any], name: str, place: str) -> str | None:
        file = one.get(f"{name}_file")
        if file is None:
            return one.get(name)
        if one.get(name) is not None:
            raise LLMInvalidRequestError(
                f"{place} has {name} and {name}_file; leave one of the two out", param=place
            )
        try:
            return (self._folder / str(file)).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise LLMInvalidRequestError(f"{place}.{name}_file: {error}", param=place) from error

    def _type(self, said: object, place: str) -> Any:
        if said is None or isinstance(said, Mapping):
            return said
        if isinstance(said, str) and said in self._models:
            return self._type(self._models[said], f"models.{said}")
        if isinstance(said, str) and ":" in said:
            return named(said, place)
        near = get_close_matches(str(said), list(self._models), n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise LLMInvalidRequestError(
            f"{place} is {said!r}; {hint}it must be one of models, a JSON Schema, or "
            "package.module:Class",
            param=place,
        )


def _mapping(said: object, place: str, known: tuple[str, ...] | None) -> Mapping[str, Any]:
    if not isinstance(said, Mapping):
        raise LLMInvalidRequestError(f"{place} must be a mapping, is {said!r}"[:300], param=place)
    for name in said:
        if known is not None and name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise LLMInvalidRequestError(
                f"{place} has no field {name!r}; {hint}known: {', '.join(known)}", param=place
            )
    return said


def _text(one: Mapping[str, Any], name: str, place: str) -> str:
    said = one.get(name)
    if not isinstance(said, str) or not said:
        raise LLMInvalidRequestError(
            f"{place}.{name} is {said!r}, must be a text", param=f"{place}.{name}"
        )
    return said
