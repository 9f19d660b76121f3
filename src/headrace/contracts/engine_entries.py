"""Engines as users write them down, in Python or YAML, to EngineConfig.

Both forms of a list are read, ``- name: local`` and ``local: {...}``, and the other names that some
fields have: ``env`` is ``extra_env``, ``persistent`` the opposite of ``lazy``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from headrace.contracts.convert import from_plain
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

E = TypeVar("E", bound=EngineConfig)

_SHOWN = (
    "engines are a list of mappings, each with name and model, or a mapping from names to such, as in\n"
    "engines:\n  - name: local\n    model: HuggingFaceTB/SmolLM2-135M-Instruct\n    backend: vllm_api"
)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]|\['([^']*)'\]")


def engine_of(said: Mapping[str, object]) -> EngineConfig:
    """The engine that the fields ``said`` describe.

    Raises LLMInvalidRequestError that names the field, its value and what would be right.
    """
    return from_plain(plain_entry(said), EngineConfig)


def read_engines(text: str, source: str, kind: type[E]) -> tuple[E, ...]:
    """The engines in the YAML ``text``, each a ``kind``: under its key ``engines``, or all of it.

    Raises LLMInvalidRequestError that names ``source``, the line and the field.
    """
    from headrace.contracts._yaml import read_yaml

    try:
        whole = read_yaml(text)
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{source}: {error}") from error
    listed, path = whole, "$"
    if isinstance(whole, dict) and "engines" in whole:
        listed, path = whole["engines"], "$.engines"
    try:
        return tuple(
            from_plain(plain_entry(entry, where), kind, path=where)
            for where, entry in entries(listed, path)
        )
    except LLMInvalidRequestError as error:
        line = line_at(text, steps_of(error.param or ""))
        raise LLMInvalidRequestError(f"{source}:{line}: {error}", param=error.param) from error


def entries(listed: object, path: str = "$") -> list[tuple[str, dict[str, object]]]:
    """Each engine ``listed`` with where it stands; its name is among its fields in either form."""
    if isinstance(listed, Mapping) and all(isinstance(each, Mapping) for each in listed.values()):
        found = [
            (_child(path, name), _named(str(name), dict(fields), _child(path, name)))
            for name, fields in listed.items()
        ]
    elif isinstance(listed, (list, tuple)) and all(isinstance(each, Mapping) for each in listed):
        found = [(f"{path}[{i}]", dict(fields)) for i, fields in enumerate(listed)]
    else:
        raise LLMInvalidRequestError(f"{_SHOWN}\n@ {path}", param=_param(path) or None)
    named: dict[object, str] = {}
    for where, fields in found:
        name = fields.get("name")
        if isinstance(name, str) and name in named:
            raise _wrong(
                f"there are two engines {name!r}, the other one @ {named[name]}; give one another "
                "name",
                where,
                "name",
            )
        named[name] = where
    return found


def plain_entry(said: Mapping[str, object], path: str = "$") -> dict[str, object]:
    """The fields ``said`` under the names that EngineConfig has for them, for ``from_plain``."""
    plain = dict(said)
    if "env" in plain:
        if "extra_env" in plain:
            raise _wrong(
                "env is another name for extra_env, and both are given; leave one of them out",
                path,
                "env",
            )
        plain["extra_env"] = plain.pop("env")
    if "persistent" in plain:
        persistent = plain.pop("persistent")
        if not isinstance(persistent, bool):
            raise _wrong(f"persistent is {persistent!r}, must be true or false", path, "persistent")
        if plain.get("lazy", not persistent) is persistent:
            raise _wrong(
                f"persistent is {str(persistent).lower()} and lazy is {str(persistent).lower()}, "
                "and one is the opposite of the other; leave one of them out",
                path,
                "persistent",
            )
        plain["lazy"] = not persistent
    # OMP_NUM_THREADS: 2 is a number to YAML, and a text to every program.
    env = plain.get("extra_env")
    if isinstance(env, Mapping):
        plain["extra_env"] = {name: _text(value) for name, value in env.items()}
    for name in ("extra_serve_flags", "command"):
        words = plain.get(name)
        if isinstance(words, (list, tuple)):
            plain[name] = [_text(word) for word in words]
    return plain


def line_at(text: str, steps: Sequence[str | int]) -> int:
    """The line of what ``steps`` lead to in the YAML ``text``, by whichever name it is written."""
    from headrace.contracts._yaml import line_of

    written = ["env" if step == "extra_env" else step for step in steps]
    # The name that its writer chose leads further than the one that is not there.
    return max(line_of(text, steps), line_of(text, written))


def steps_of(param: str) -> list[str | int]:
    """The steps of a path such as ``engines[0].port``."""
    at = param if param.startswith("[") else f".{param}"
    return [int(place) if place else name or quoted for name, place, quoted in _STEP.findall(at)]


def _text(value: object) -> object:
    return str(value) if type(value) in (int, float) else value


def _named(name: str, fields: dict[str, object], path: str) -> dict[str, object]:
    if fields.get("name", name) != name:
        raise _wrong(
            f"name is {fields['name']!r}, and the engine stands under {name!r}; leave it out",
            path,
            "name",
        )
    return {"name": name, **fields}


def _wrong(what: str, path: str, field: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"{what} @ {path}.{field}", param=_param(f"{path}.{field}") or None
    )


def _param(path: str) -> str:
    return path.removeprefix("$").removeprefix(".")


def _child(path: str, key: object) -> str:
    return f"{path}.{key}" if str(key).isidentifier() else f"{path}[{str(key)!r}]"
