"""A chain: its nodes in order, checked before anything runs, and the key of each node's work."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from functools import partial

from headrace.chains.fitting import fields_of
from headrace.chains.flow import Passage, fields_before, passages_of, wanted_by
from headrace.chains.nodes import Branch, Group, Join, Node, Path, Reduce, Step
from headrace.chains.values import as_json, key_of
from headrace.contracts.errors import LLMInvalidRequestError

_ALWAYS_SEEN = frozenset({"row", "value"})


class Part:
    """A stretch of a chain that values go through one by one; ``reduce`` stands before it, if any."""

    def __init__(
        self, path: Path, marks: Mapping[str, bytes], reduce: Reduce | None = None
    ) -> None:
        self.path, self.reduce = path, reduce
        self.nodes = tuple(_nodes(path))
        self._marks = marks

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


class Chain(Part):
    """A graph of nodes. ``engines`` are the models that its steps name, as ``Client`` takes them.

    Raises LLMInvalidRequestError, naming the node, for what could not run: an id twice, a join
    behind no group, a name in a template that nothing before it gives, a type that cannot be what
    the next node takes.
    """

    def __init__(self, what: Node | Path | Group, *, name: str = "chain") -> None:
        self.name = name
        marks: dict[str, bytes] = {}
        super().__init__(Path.of(what), marks)
        _check_ids(self.nodes)
        _check_reduces(self.path, self.nodes)
        self.passages = passages_of(self.path)
        """What comes to each node and what leaves it, by its id, as far as types tell."""
        _, self.whole_mark = self._walk(self.path, frozenset(), b"", marks)
        """Stands for all of its nodes."""

    def __reduce__(self) -> tuple[Callable[..., Chain], tuple[Path]]:
        return partial(Chain, name=self.name), (self.path,)  # for another process

    def parts(self) -> tuple[Part, ...]:
        """What lies between its reductions: each runs for all values before the next one begins."""
        parts: list[Part] = []
        begun: list[Node | Group] = []
        reduce: Reduce | None = None
        for place in self.path.places:
            if isinstance(place, Reduce):
                parts.append(Part(Path(tuple(begun)), self._marks, reduce))
                reduce, begun = place, []
            else:
                begun.append(place)
        return (*parts, Part(Path(tuple(begun)), self._marks, reduce))

    def _walk(
        self, path: Path, given: frozenset[str], mark: bytes, marks: dict[str, bytes]
    ) -> tuple[frozenset[str], bytes]:
        before: Node | Group | None = None
        for place in path.places:
            if isinstance(place, Group):
                ended = [self._walk(each, given, mark, marks) for each in place.paths]
                mark = key_of(mark, *(each for _, each in ended))
                given = given.union(*(names for names, _ in ended))
            else:
                if isinstance(place, Join):
                    _check_join(place, before)
                mark = marks[place.id] = key_of(mark, as_json(place.signature()))
                if isinstance(place, Branch):
                    ways = [Path.of(way) for way in place.paths.values()]
                    ended = [self._walk(way, given, mark, marks) for way in ways]
                    mark = key_of(mark, *(each for _, each in ended))
                    given = given.union(*(names for names, _ in ended))
                if isinstance(place, Step):
                    _check_names(place, self.passages[place.id], given)
                if isinstance(place, Reduce):
                    _check_by(place, self.passages[place.id], given)
                given = frozenset({place.id}) | (
                    frozenset() if isinstance(place, Reduce) else given
                )
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


def _check_reduces(path: Path, nodes: tuple[Node, ...]) -> None:
    for node in nodes:
        if isinstance(node, Reduce) and node not in path.places:
            raise LLMInvalidRequestError(
                f"{node.id}: a reduce takes what comes from all rows, so it cannot stand inside a "
                "group's or a branch's path; put it behind them",
                param=node.id,
            )


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


def _check_names(step: Step, passage: Passage, given: frozenset[str]) -> None:
    """Where it is known what comes to ``step``, its templates must not name anything else."""
    fields = _fields_of(step, passage)
    if fields is None:
        return
    known = fields | given | _ALWAYS_SEEN
    for template in (step.user_template, step.system_template, *step.image_expressions):
        unknown = sorted((template.names() if template else frozenset()) - known)
        if template is not None and unknown:
            raise LLMInvalidRequestError(
                f"{template.place} names {unknown[0]!r}, which nothing before it gives; known: "
                f"{', '.join(sorted(known))}",
                param=template.place,
            )


def _check_by(reduce: Reduce, passage: Passage, given: frozenset[str]) -> None:
    fields = fields_before(passage)
    if callable(reduce.by) or fields is None:
        return
    known = fields | given | _ALWAYS_SEEN
    for name in (reduce.by,) if isinstance(reduce.by, str) else reduce.by:
        if name.partition(".")[0] not in known:
            raise LLMInvalidRequestError(
                f"{reduce.id}.by is {name!r}, which nothing before it gives; known: "
                f"{', '.join(sorted(known))}",
                param=f"{reduce.id}.by",
            )


def _fields_of(step: Step, passage: Passage) -> frozenset[str] | None:
    wanted = wanted_by(step)
    return fields_before(passage) if wanted is None else fields_of(wanted)
