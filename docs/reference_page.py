"""The reference: every public name, its fields or signature, and what its docstring says."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from types import GenericAlias, UnionType
from typing import Any, Literal, get_args, get_origin

from attrs import NOTHING, Factory, fields, has

import headrace
from headrace import _HOME_OF, _HOMES

# A public name belongs to the topic of the module in which it lives.
TOPICS = {
    "headrace.client.sync_client": "The client",
    "headrace.client.async_client": "The client",
    "headrace.client.choosing": "The client's settings",
    "headrace.client.settings": "The client's settings",
    "headrace.client.engine": "Engines",
    "headrace.client.registry": "Engines",
    "headrace.contracts.engines": "Engines",
    "headrace.client.endpoint_config": "Endpoints and handlers",
    "headrace.client.handlers": "Endpoints and handlers",
    "headrace.client.structured.results": "Answers as objects",
    "headrace.client.structured.settings": "Answers as objects",
    "headrace.client.batches": "Batches",
    "headrace.traffic.endpoint": "The client's settings",
    "headrace.traffic.retry": "The client's settings",
    "headrace.traffic.breaker": "The client's settings",
    "headrace.traffic.hedge": "The client's settings",
    "headrace.net.transport": "The client's settings",
    "headrace.stores.credentials": "Keys",
    "headrace.stores.secret": "Keys",
    "headrace.traffic.sinks": "Sinks",
    "headrace.traffic.otel": "Sinks",
    "headrace.backends.row": "Providers",
    "headrace.backends.providers": "Providers",
    "headrace.contracts.messages": "Messages and tools",
    "headrace.contracts.requests": "Requests",
    "headrace.contracts.responses": "Responses",
    "headrace.contracts.ranking": "Ranking and classes",
    "headrace.contracts.audio": "Speech",
    "headrace.contracts.inference": "Tensors and values",
    "headrace.wire.tensors": "Tensors and values",
    "headrace.gateway.functions.app": "Functions that are served",
    "headrace.gateway.functions.function": "Functions that are served",
    "headrace.contracts.errors": "Errors",
    "headrace.contracts.record": "Records",
    "headrace.contracts.routing": "Records",
    "headrace.contracts.snapshot": "Snapshots",
    "headrace.contracts.engine_metrics": "Snapshots",
    "headrace.contracts.capabilities": "Capabilities and models",
    "headrace.contracts.protocols": "Protocols",
    "headrace.contracts.relay": "Protocols",
}
# What is not imported from ``headrace`` itself.
BESIDE = {
    "A client's endpoints": [
        "headrace.client.endpoint_table.AsyncEndpoints",
        "headrace.client.endpoint_table.SyncEndpoints",
    ],
    "How a batch stands": [
        "headrace.contracts.batches.Batch",
        "headrace.contracts.batches.BatchCounts",
        "headrace.contracts.batches.BatchProblem",
    ],
    "Files of keys": [
        "headrace.stores.credentials.write_template",
    ],
    "Tokens and prices": [
        "headrace.backends.tokens.TokenCount",
        "headrace.backends.tokens.count_here",
        "headrace.backends.tokens.count_tokens",
        "headrace.numbers.price.rates_of",
        "headrace.numbers.price.price",
    ],
    "Plain values": [
        "headrace.contracts.convert.to_plain",
        "headrace.contracts.convert.from_plain",
        "headrace.contracts.convert.to_json",
        "headrace.contracts.convert.from_json",
        "headrace.contracts.convert.from_yaml",
    ],
    "Scripted networks": [
        "headrace.net.scripted.ScriptedTransport",
        "headrace.net.scripted.ScriptedAnswer",
        "headrace.net.scripted.Piece",
        "headrace.net.manual_clock.ManualClock",
    ],
}

_LINE = 100


def reference(note: str) -> str:
    """The whole page; raises KeyError for a public name that has no topic."""
    topics: dict[str, list[str]] = {topic: [] for topic in TOPICS.values()}
    for home, names in _HOMES.items():
        topics[TOPICS[home]] += names
    assert {*_HOME_OF, "__version__"} == set(headrace.__all__)
    lines = [
        "# Reference",
        "",
        note,
        "",
        "All of these are imported from `headrace`, unless their heading says from where. Contracts",
        "are immutable and made with keywords; `attrs.evolve(request, model=...)` makes a changed copy.",
        "",
    ]
    for topic, names in topics.items():
        lines += [f"## {topic}", ""]
        if topic == "Errors":
            tree = inspect.cleandoc(import_module("headrace.contracts.errors").__doc__ or "")
            lines += ["```text", tree, "```", ""]
        for name in sorted(names):
            lines += _entry(f"`{name}`", name, getattr(headrace, name))
    for topic, paths in BESIDE.items():
        lines += [f"## {topic}", ""]
        for path in paths:
            module, _, name = path.rpartition(".")
            lines += _entry(
                f"`{name}` (from `{module}`)", name, getattr(import_module(module), name)
            )
    return "\n".join(lines)


def _entry(heading: str, name: str, what: Any) -> list[str]:
    lines = [f"### {heading}", ""]
    if inspect.isfunction(what):
        return lines + _code(_signature(name, what)) + _text(what)
    if isinstance(what, headrace.EndpointHandlers):
        return [*lines, "The one object of that class in a process.", ""]
    if not inspect.isclass(what) or isinstance(what, GenericAlias):
        return lines + _code(_one_or_a_line_each(name, _alias(what)))
    if issubclass(what, Exception):
        lines += _code(f"class {name}({what.__bases__[0].__name__})")
    elif has(what):
        lines += _code(_fields(name, what))
    elif "__init__" in vars(what) and not getattr(what, "_is_protocol", False):
        lines += _code(_signature(name, what.__init__).removesuffix(" -> None"))
    else:
        lines += _code(f"class {name}(Protocol)")
    lines += _text(what)
    for method, made in _methods(what):
        lines += _code(_signature(method, made)) + _text(made)
    return lines


def _methods(cls: type) -> list[tuple[str, Any]]:
    found = []
    for name, value in vars(cls).items():
        made = value.__func__ if isinstance(value, (classmethod, staticmethod)) else value
        if not name.startswith("_") and inspect.isfunction(made) and made.__doc__:
            found.append((name, made))
    return found


def _fields(name: str, cls: type) -> str:
    """The fields that may be given, one a line: there are too many for one."""
    shown = []
    for item in fields(cls):
        if not item.init:
            continue
        kind = item.type if isinstance(item.type, str) else getattr(item.type, "__name__", "Any")
        shown.append(f"    {item.alias}: {kind}{_default(item.default)},")
    return "\n".join([f"{name}(", "    *,", *shown, ")"]) if shown else f"{name}()"


def _default(value: Any) -> str:
    if value is NOTHING:
        return ""
    if isinstance(value, Factory):  # type: ignore[arg-type]
        made = value.factory
        name = getattr(made, "__name__", "")
        # One that reads this machine says nothing that would hold elsewhere.
        return " = ..." if value.takes_self or not name.isidentifier() else f" = {name}()"
    if has(type(value)) or not isinstance(value, (bool, int, float, str, tuple, type(None))):
        return " = ..."
    if isinstance(value, tuple) and value:
        return " = (" + ", ".join(getattr(v, "__name__", repr(v)) for v in value) + ",)"
    return f" = {value!r}"


def _signature(name: str, function: Any) -> str:
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    if parameters and parameters[0].name in ("self", "cls"):
        del parameters[0]
    # Annotations are texts here, and would be shown in quotes.
    plain = signature.replace(
        parameters=[p.replace(annotation=inspect.Parameter.empty) for p in parameters],
        return_annotation=inspect.Signature.empty,
    )
    words = []
    for shown, parameter in zip(_split(str(plain)), _with_marks(parameters), strict=True):
        kind = "" if parameter is None else parameter.annotation
        if not kind or kind is inspect.Parameter.empty:
            words.append(shown)
        else:
            left, equals, default = shown.partition("=")
            default = "..." if " at 0x" in default or "<" in default else default
            words.append(f"{left}: {kind}" + (f" = {default}" if equals else ""))
    prefix = "async " if inspect.iscoroutinefunction(function) else ""
    returns = signature.return_annotation
    arrow = "" if returns is inspect.Signature.empty else f" -> {returns}"
    line = f"{prefix}{name}({', '.join(words)}){arrow}"
    if len(line) <= 96:
        return line
    return "\n".join([f"{prefix}{name}(", *(f"    {word}," for word in words), f"){arrow}"])


def _split(text: str) -> list[str]:
    """What stands between the outer brackets, cut at its own commas."""
    words, depth, word = [], 0, ""
    for letter in text[1:-1]:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            words.append(word.strip())
            word = ""
        else:
            word += letter
    return [*words, word.strip()] if word.strip() else words


def _with_marks(parameters: list[inspect.Parameter]) -> list[inspect.Parameter | None]:
    """The parameters, with ``None`` where a signature shows the bare star before keywords, or the
    stroke behind those without."""
    found: list[inspect.Parameter | None] = []
    starred = False
    for before, parameter in zip([None, *parameters], parameters, strict=False):
        if before is not None and before.kind is before.POSITIONAL_ONLY != parameter.kind:
            found.append(None)
        if parameter.kind is parameter.VAR_POSITIONAL:
            starred = True
        if parameter.kind is parameter.KEYWORD_ONLY and not starred:
            starred = True
            found.append(None)
        found.append(parameter)
    return found


def _alias(what: Any) -> str:
    if get_origin(what) is Literal:
        return " | ".join(f'"{word}"' for word in get_args(what))
    if isinstance(what, UnionType) or str(what).startswith("typing.Union"):
        return " | ".join(_alias(part) for part in get_args(what))
    return what.__name__ if inspect.isclass(what) else re.sub(r"[a-z_]+\.", "", str(what))


def _one_or_a_line_each(name: str, alias: str) -> str:
    """The definition as the formatter has it: a line for each of many words."""
    line = f"{name} = {alias}"
    if len(line) <= _LINE:
        return line
    return "\n".join([f"{name} = (", f"    {alias}".replace(" | ", "\n    | "), ")"])


def _code(text: str) -> list[str]:
    return ["```py", text, "```", ""]


def _text(what: Any) -> list[str]:
    said = inspect.cleandoc(what.__doc__ or "")
    # An example in a docstring is shown as one; the rest is prose.
    prose, mark, example = said.partition("\n>>> ")
    lines = [prose.replace("``", "`").strip(), ""] if prose.strip() else []
    return [*lines, *_code(f">>> {example}")] if mark else lines
