"""YAML text to plain values, by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103).

PyYAML's own rules are those of YAML 1.1, where ``no`` is false, ``22:22`` is 1342, ``1e-3`` is
text and ``2024-01-01`` is a date; none of these is what the writer of a configuration means.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    import yaml

_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("merge", r"<<", "<"),
)


def read_yaml(text: str) -> object:
    """The one document in ``text``; LLMInvalidRequestError with line and column if it is none."""
    import yaml

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - it is a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise LLMInvalidRequestError(f"not YAML: {error.problem}{where}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise LLMInvalidRequestError(f"not YAML: {error}") from error


def line_of(text: str, steps: Sequence[str | int]) -> int:
    """The line, from 1 on, where the value stands to which ``steps`` lead from the whole of ``text``.

    Keys lead into mappings and places into lists. Where one leads nowhere, as a field does that is
    missing, it is the line of what should have had it.
    """
    import yaml

    node: Any = yaml.compose(text, Loader=_loader())
    line = node.start_mark.line if node is not None else 0
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
            found = (node.value[step],) * 2 if step < len(node.value) else None
        else:
            found = None
        if found is None:
            break
        key, node = found
        line = key.start_mark.line
    return int(line) + 1


@cache
def _loader() -> type[yaml.SafeLoader]:
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own name and type

        def construct_mapping(
            self, node: yaml.MappingNode, deep: bool = False
        ) -> dict[object, object]:
            seen = set()
            for key, _ in node.value:
                # A merged key may be given again: that is how a merged value is overridden.
                if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                    continue
                if (key.tag, key.value) in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

        def construct_int(self, node: yaml.ScalarNode) -> int:
            # 010 is ten in YAML 1.2; PyYAML would read it in base 8.
            text = str(self.construct_scalar(node))
            return int(text, 16) if text.startswith("0x") else int(text)

    Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_int)
    for kind, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(
            f"tag:yaml.org,2002:{kind}",
            re.compile(rf"^(?:{pattern})$"),
            ["" if c == "\0" else c for c in first],
        )
    return Loader
