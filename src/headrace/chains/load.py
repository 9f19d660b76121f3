"""Chains from files: a YAML document, or ``package.module:name`` in Python."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path as FilePath
from typing import Any

from attrs import Attribute

from headrace.backends.managed.opening import check_engine
from headrace.chains.graph import Chain
from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Reduce, Step, schema_of
from headrace.chains.tools import Tool
from headrace.client.registry import get_engine_config
from headrace.contracts._checks import WrongAmount, WrongKind
from headrace.contracts._yaml import read_yaml
from headrace.contracts.convert import from_plain
from headrace.contracts.engine_entries import entries, line_at, plain_entry, steps_of
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
    "images",
    "asks",
    "ask_tokens",
    "repair",
    "timeout_s",
    "images",
    "format_instruction",
    "tools",
    "max_tool_rounds",
    "tool_timeout_s",
    "mode",
    "batch_retry",
    "max_wait_s",
)
_AS_SAID = (
    "asks",
    "ask_tokens",
    "repair",
    "timeout_s",
    "images",
    "format_instruction",
    "max_tool_rounds",
    "tool_timeout_s",
    "mode",
    "batch_retry",
    "max_wait_s",
)
_KINDS = ("parallel", "apply", "branch", "join", "reduce")


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
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{path}: {error.message}", param="chain") from error
    read = _Document(document, path.parent)
    try:
        return read.chain(path.stem)
    except LLMInvalidRequestError as error:
        line = line_at(text, read.steps_to(error.param or ""))
        raise LLMInvalidRequestError(
            f"{path}:{line}: {error.message}", param=error.param
        ) from error


class _Document:
    """One YAML chain; ``folder`` is where the files lie that it names."""

    def __init__(self, document: object, folder: FilePath) -> None:
        self._document, self._folder = document, folder
        self._top: Mapping[str, Any] = {}
        self._models: Mapping[str, Any] = {}
        self._places: dict[str, str] = {}  # of nodes, by their ids

    def steps_to(self, param: str) -> list[str | int]:
        """Where in the file the field is that an error names: by its place, or by its node's id."""
        node, dot, rest = param.partition(".")
        place = self._places.get(node)
        return steps_of(param if place is None else f"{place}{dot}{rest}")

    def chain(self, stem: str) -> tuple[Chain, tuple[EngineConfig, ...]]:
        self._top = _mapping(self._document, "", _TOP)
        self._models = _mapping(self._top.get("models") or {}, "models", None)
        for name in self._models:
            self._type(name, f"models.{name}")
        engines = self._engines()
        steps = self._top.get("steps")
        if not isinstance(steps, list) or not steps:
            raise LLMInvalidRequestError("steps must be a list of at least one", param="steps")
        nodes = [self._node(each, f"steps[{i}]") for i, each in enumerate(steps)]
        chain = Chain(self._path(nodes), name=str(self._top.get("name") or stem))
        names = [each.name for each in engines]
        for step in (node for node in chain.nodes if isinstance(node, Step)):
            wanted = step.engine
            if wanted not in names and "/" not in wanted:
                near = get_close_matches(wanted, names, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise LLMInvalidRequestError(
                    f"{step.id}.engine is {wanted!r}; {hint}known: {', '.join(names) or 'none'}, or "
                    "provider/model",
                    param=f"{step.id}.engine",
                )
        return chain, engines

    def _engines(self) -> tuple[EngineConfig, ...]:
        found = []
        for where, entry in entries(self._top.get("engines") or [], "$.engines"):
            engine = from_plain(plain_entry(entry, where), EngineConfig, path=where)
            with _at(where.removeprefix("$.")):
                check_engine(engine)
            found.append(engine)
        return tuple(found)

    def _node(self, said: object, place: str) -> Node | Group:
        if isinstance(said, Mapping):
            name = said.get("join") if "join" in said else said.get("id")
            if isinstance(name, str):
                self._places[name] = place
        try:
            return self._made(said, place)
        except (WrongKind, WrongAmount) as error:  # what a node's own checks say
            about = [each.name for each in error.args[1:] if isinstance(each, Attribute)]
            field = ".".join([place, *about])
            raise LLMInvalidRequestError(f"{field}: {error}", param=field) from error

    def _made(self, said: object, place: str) -> Node | Group:
        if isinstance(said, Mapping) and "parallel" in said:
            return self._group(said["parallel"], f"{place}.parallel")
        if isinstance(said, Mapping) and "apply" in said:
            one = _mapping(said, place, ("id", "apply", "how", "input", "output", "version"))
            return Apply(
                id=_text(one, "id", place),
                function=self._function(one, "apply", place),
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
                choose=self._function(one, "branch", place),
                paths={
                    name: self._path(self._several(each, f"{place}.paths.{name}"))
                    for name, each in paths.items()
                },
                version=str(one.get("version", "")),
            )
        if isinstance(said, Mapping) and "join" in said:
            one = _mapping(said, place, ("join", "partial"))
            return Join(id=_text(one, "join", place), partial=_flag(one, "partial", place))
        if isinstance(said, Mapping) and "reduce" in said:
            return self._reduce(said, place)
        return self._step(said, place)

    def _reduce(self, said: Mapping[str, Any], place: str) -> Reduce:
        one = _mapping(said, place, ("id", "reduce", "by", "input", "output", "version"))
        by, function = one.get("by"), one.get("reduce")
        if by is None:
            raise LLMInvalidRequestError(
                f"{place}.by is missing: a field's name, a list of such, or package.module:name",
                param=place,
            )
        return Reduce(
            id=_text(one, "id", place),
            by=named(by, f"{place}.by") if isinstance(by, str) and ":" in by else by,
            function=None if function is None else self._function(one, "reduce", place),
            input=self._type(one.get("input"), f"{place}.input"),
            output=self._type(one.get("output"), f"{place}.output"),
            version=str(one.get("version", "")),
        )

    def _function(self, one: Mapping[str, Any], name: str, place: str) -> Any:
        return _callable(named(_text(one, name, place), f"{place}.{name}"), f"{place}.{name}")

    def _tools(self, said: object, place: str) -> list[Any]:
        if not isinstance(said, list):
            raise LLMInvalidRequestError(
                f"{place} is {said!r}, must be a list of package.module:name", param=place
            )
        tools = []
        for number, each in enumerate(said):
            at = f"{place}[{number}]"
            if not isinstance(each, str):
                raise LLMInvalidRequestError(
                    f"{at} is {each!r}, must be package.module:name", param=at
                )
            with _at(at, whole=True):
                tools.append(Tool.of(_callable(named(each, at), at)))
        return tools

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
        one = _mapping(said, place, _OF_A_STEP, also=_KINDS)
        user = self._prompt(one, "user", place)
        if user is None:
            raise LLMInvalidRequestError(f"{place}.user is missing", param=f"{place}.user")
        more = {name: one[name] for name in _AS_SAID if name in one}
        if "tools" in one:
            more["tools"] = self._tools(one["tools"], f"{place}.tools")
        return Step(
            id=_text(one, "id", place),
            engine=_text(one, "engine", place),
            user=user,
            system=self._prompt(one, "system", place),
            input=self._type(one.get("input"), f"{place}.input"),
            output=self._type(one.get("output"), f"{place}.output"),
            sampling=from_plain(
                one.get("sampling") or {}, LLMChatParams, path=f"$.{place}.sampling"
            ),
            **more,
        )

    def _prompt(self, one: Mapping[str, Any], name: str, place: str) -> str | None:
        file = one.get(f"{name}_file")
        if file is None:
            return None if one.get(name) is None else _text(one, name, place)
        if one.get(name) is not None:
            raise LLMInvalidRequestError(
                f"{place} has {name} and {name}_file; leave one of the two out", param=place
            )
        try:
            return (self._folder / str(file)).read_text()
        except (OSError, UnicodeDecodeError) as error:
            field = f"{place}.{name}_file"
            raise LLMInvalidRequestError(f"{field}: {error}", param=field) from error

    def _type(self, said: object, place: str) -> Any:
        if said is None:
            return None
        found = said
        if isinstance(said, str) and said in self._models:
            found, place = self._models[said], f"models.{said}"
        if isinstance(found, str) and ":" in found:
            found = named(found, place)
        elif not isinstance(found, Mapping):
            near = get_close_matches(str(found), list(self._models), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise LLMInvalidRequestError(
                f"{place} is {found!r}; {hint}it must be one of models, a JSON Schema, or "
                "package.module:Class",
                param=place,
            )
        with _at(place, whole=True):
            schema_of(found)
        return found


@contextmanager
def _at(place: str, *, whole: bool = False) -> Iterator[None]:
    """Errors of what is done within are about ``place`` in the file, or a field of it."""
    try:
        yield
    except LLMInvalidRequestError as error:
        field = place if whole or error.param is None else f"{place}.{error.param}"
        if error.param is not None and error.param.startswith(place):
            field = error.param
        said = error.message if field in error.message else f"{field}: {error.message}"
        raise LLMInvalidRequestError(said, param=field) from error


def _mapping(
    said: object, place: str, known: tuple[str, ...] | None, also: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    """``said`` where its names are all ``known``; ``also`` are others that may have been meant."""
    if not isinstance(said, Mapping):
        raise LLMInvalidRequestError(
            f"{place or 'the file'} must be a mapping, is {said!r}"[:300], param=place
        )
    for name in said:
        if known is not None and name not in known:
            near = get_close_matches(str(name), [*known, *also], n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise LLMInvalidRequestError(
                f"{place or 'the file'} has no field {name!r}; {hint}known: {', '.join(known)}",
                param=f"{place}.{name}" if place else str(name),
            )
    return said


def _callable(found: Any, field: str) -> Any:
    if not callable(found):
        raise LLMInvalidRequestError(
            f"{field} is a {type(found).__name__}, must be a function", param=field
        )
    return found


def _flag(one: Mapping[str, Any], name: str, place: str) -> bool:
    said = one.get(name, False)
    if not isinstance(said, bool):
        field = f"{place}.{name}"
        raise LLMInvalidRequestError(f"{field} is {said!r}, must be true or false", param=field)
    return said


def _text(one: Mapping[str, Any], name: str, place: str) -> str:
    said = one.get(name)
    if not isinstance(said, str) or not said:
        wrong = f"is {said!r}, must be a text" if name in one else "is missing"
        raise LLMInvalidRequestError(f"{place}.{name} {wrong}", param=f"{place}.{name}")
    return said
