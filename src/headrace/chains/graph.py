"""A chain: its nodes in order, checked before anything runs, and the key of each node's work."""

from __future__ import annotations

from collections.abc import Container, Iterator
from typing import Any

from headrace.chains.nodes import Apply, Branch, Group, Join, Node, Path, Step
from headrace.chains.values import as_json, key_of
from headrace.contracts.errors import LLMInvalidRequestError

_ALWAYS_SEEN = frozenset({"row", "value"})


class Chain:
    """A graph of nodes. ``engines`` are the models that its steps name, as ``Client`` takes them.

    Raises LLMInvalidRequestError, naming the node, for what could not run: an id twice, a join
    behind no group, a name in a template that nothing before it gives.
    """

    def __init__(self, what: Node | Path | Group, *, name: str = "chain") -> None:
        self.name = name
        self.path = Path.of(what)
        self.nodes = tuple(_nodes(self.path))
        self._marks: dict[str, bytes] = {}
        _check_ids(self.nodes)
        _, self.whole_mark = self._walk(self.path, frozenset(), b"")
        """Stands for all of its nodes."""

    def mark(self, node: Node) -> bytes:
        """Stands for all that ``node``'s work depends on beside what comes to it: itself, and what
        stands before it."""
        return self._marks[node.id]

    def engines(self) -> tuple[str, ...]:
        """The engines that its steps name, each once."""
        return tuple(dict.fromkeys(node.engine for node in self.nodes if isinstance(node, Step)))

    def steps(self) -> dict[str, str]:
        """The engine of each step, by the step's id."""
        return {node.id: node.engine for node in self.nodes if isinstance(node, Step)}

    def segments(self, lazy: Container[str]) -> tuple[dict[str, int], tuple[str | None, ...]]:
        """Which nodes are done together where only one engine of ``lazy`` shall run at a time.

        The number of each node's segment, and the engine of each segment. A node that asks no such
        engine belongs to the segment of those before it.
        """
        numbers: dict[str, int] = {}
        engines: list[str | None] = [None]
        for node in self.nodes:
            if isinstance(node, Step) and node.engine in lazy and node.engine != engines[-1]:
                if engines[-1] is None:
                    engines[-1] = node.engine
                else:
                    engines.append(node.engine)
            numbers[node.id] = len(engines) - 1
        return numbers, tuple(engines)

    def _walk(self, path: Path, given: frozenset[str], mark: bytes) -> tuple[frozenset[str], bytes]:
        before: Node | Group | None = None
        for place in path.places:
            if isinstance(place, Group):
                ended = [self._walk(each, given, mark) for each in place.paths]
                mark = key_of(mark, *(each for _, each in ended))
                given = given.union(*(names for names, _ in ended))
            else:
                if isinstance(place, Join):
                    _check_join(place, before)
                mark = self._marks[place.id] = key_of(mark, as_json(place.signature()))
                if isinstance(place, Branch):
                    ways = [Path.of(way) for way in place.paths.values()]
                    ended = [self._walk(way, given, mark) for way in ways]
                    mark = key_of(mark, *(each for _, each in ended))
                    given = given.union(*(names for names, _ in ended))
                if isinstance(place, Step):
                    _check_names(place, before, given)
                given |= {place.id}
            before = place
        return given, mark


def _nodes(path: Path) -> Iterator[Node]:
    for place in path.places:
        if isinstance(place, Group):
            for each in place.paths:
                yield from _nodes(each)
            continue
        yield place
        if isinstance(place, Branch):
            for way in place.paths.values():
                yield from _nodes(Path.of(way))


def _check_ids(nodes: tuple[Node, ...]) -> None:
    seen: set[str] = set()
    for node in nodes:
        if node.id in seen:
            raise LLMInvalidRequestError(
                f"two nodes have the id {node.id!r}; give one of them another", param=node.id
            )
        if node.id in _ALWAYS_SEEN:
            raise LLMInvalidRequestError(
                f"a node cannot have the id {node.id!r}: templates call the input by it",
                param=node.id,
            )
        seen.add(node.id)


def _check_join(join: Join, before: Node | Group | None) -> None:
    if not isinstance(before, Group | Branch):
        raise LLMInvalidRequestError(
            f"{join.id}: a join stands behind a group of paths, as in (a | b).join(...)",
            param=join.id,
        )
    if isinstance(before, Group) and any(isinstance(p.places[-1], Group) for p in before.paths):
        raise LLMInvalidRequestError(
            f"{join.id}: a path that is to be joined cannot end with a group; join that first",
            param=join.id,
        )


def _check_names(step: Step, before: Node | Group | None, given: frozenset[str]) -> None:
    """Where it is known what comes to ``step``, its templates must not name anything else."""
    fields = _fields_before(step, before)
    if fields is None:
        return
    known = fields | given | _ALWAYS_SEEN
    for template in (step.user_template, step.system_template):
        unknown = sorted((template.names() if template else frozenset()) - known)
        if unknown:
            raise LLMInvalidRequestError(
                f"{template.place if template else step.id} names {unknown[0]!r}, which nothing "
                f"before it gives; known: {', '.join(sorted(known))}",
                param=step.id,
            )


def _fields_before(step: Step, before: Node | Group | None) -> frozenset[str] | None:
    from headrace.chains.nodes import schema_of

    output: Any = step.input
    if output is None and isinstance(before, Step | Apply):
        output = before.output
    if output is None:
        return None
    schema = schema_of(output)
    if "$ref" in schema:
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    properties = schema.get("properties")
    return None if properties is None else frozenset(properties)
