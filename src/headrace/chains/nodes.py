"""What a chain is made of: steps that ask a model, functions, branches, joins and reductions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, TypeAlias, get_args

from attrs import Attribute, field, fields, frozen
from attrs.validators import and_

from headrace.chains.annotations import each_taken, given, is_plain, taken
from headrace.chains.code import code_of
from headrace.chains.expressions import Expression, expressions_of
from headrace.chains.templates import Template
from headrace.chains.tools import Tool
from headrace.chains.values import as_json
from headrace.contracts._checks import (
    WrongAmount,
    WrongKind,
    as_float,
    at_least,
    kind,
    number,
    one_of,
    or_none,
)
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.requests import LLMChatParams

Output: TypeAlias = Any
"""A Pydantic model, a msgspec Struct, an attrs or data class, a JSON Schema (a dict); None: text."""

_ASKS = 4
_ASK_TOKENS = 20_000
How: TypeAlias = Literal["one", "many", "filter"]
Mode: TypeAlias = Literal["live", "batch"]


def _named(_: object, attribute: Any, name: str) -> None:
    if not str(name).isidentifier():
        raise LLMInvalidRequestError(
            f"{attribute.name} is {name!r}, must be a plain name: templates call it by that",
            param=attribute.name,
        )


def _of_a_step(_: object, attribute: Attribute[Any], sampling: LLMChatParams) -> None:
    said = [name for name in ("tools", "tool_choice", "response_schema") if getattr(sampling, name)]
    if said:
        raise WrongAmount(
            f"{attribute.name}.{said[0]} is given, and a step has its tools and its output as fields of "
            "its own; leave it out",
            attribute,
        )


def _as_texts(said: Any) -> Any:
    return tuple(said) if isinstance(said, list) else said


def _empty_for_false(said: Any) -> str | None:
    if said is None or isinstance(said, str):
        return said
    if said is not False:
        raise WrongKind(
            f"format_instruction is {said!r}; a template, or false for none at all, is needed"
        )
    return ""


def _as_names(by: Any) -> str | tuple[str, ...] | Callable[[Any], Any]:
    return tuple(by) if isinstance(by, list) else by


def _as_tools(functions: Any) -> tuple[Tool, ...]:
    if not isinstance(functions, list | tuple):
        raise WrongKind(f"tools is {functions!r}; a list of functions is needed")
    tools = tuple(Tool.of(each) for each in functions)
    names = [each.name for each in tools]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise WrongAmount(f"tools has {twice[0]!r} twice; each needs a name of its own")
    return tools


def _above_zero(_: object, attribute: Attribute[Any], value: float) -> None:
    if value <= 0:
        raise WrongAmount(f"{attribute.name} is {value!r}; it must be > 0", attribute)


def _without_tools(step: Any, attribute: Attribute[Any], mode: Mode) -> None:
    if mode == "batch" and step.tools:
        raise WrongAmount(
            f"{attribute.name} is 'batch', and tools are given, whose results a batch cannot wait for; "
            "leave one of them out",
            attribute,
        )


@frozen(kw_only=True, eq=False)
class Node:
    """One place in a chain. ``id`` is its own there, and the name of what it gave in templates."""

    id: str = field(validator=_named)

    def __rshift__(self, other: Node | Group) -> Path:
        return Path.of(self) >> other

    def __or__(self, other: Node | Path) -> Group:
        return Group((Path.of(self), Path.of(other)))

    def signature(self) -> object:
        """All that what it gives depends on, beside what comes to it; JSON."""
        raise NotImplementedError

    def __reduce__(self) -> tuple[Callable[..., Node], tuple[()]]:
        # For another process: what follows from what it was made of is made there again.
        made_of = {each.name: getattr(self, each.name) for each in fields(type(self)) if each.init}
        return partial(type(self), **made_of), ()


@frozen(kw_only=True, eq=False)
class Step(Node):
    """Asks ``engine`` for each value that comes.

    ``user`` and ``system`` are templates. What the answer is read as is ``output``; text, if it is
    None. ``input`` is what must come, and a value that is not fails; anything, if it is None.
    ``asks`` is how often a model is asked at most until its answer is what was wanted,
    ``ask_tokens`` how many tokens the asks after the first may take together, and ``timeout_s`` how
    long all that may take from the first request on, retries and waiting for the engine between them
    included. ``images`` are expressions for the images that go before the prompt: paths, data or
    other URLs, bytes, or lists of them.

    An engine that is not held to the schema of ``output`` is told of it: in our words, in those of
    ``format_instruction`` (a template that sees ``schema``), or not at all where that is empty or
    False. ``tools`` are functions that the model may call, ``max_tool_rounds`` times one after the
    other, before it answers; each call may take ``tool_timeout_s``.

    With ``mode`` "batch" all that reaches the step is asked by way of the provider's batch API, for
    less money and later. What the batch gave no answer to, though asking again may help, is asked
    ``batch_retry``: one by one ("live"), or once more in a batch. A batch that takes longer than
    ``max_wait_s`` is cancelled, and what it had not done counts as such.
    """

    engine: str
    user: str
    system: str | None = None
    input: Output = None
    output: Output = None
    sampling: LLMChatParams = field(factory=LLMChatParams, validator=_of_a_step)
    asks: int = field(default=_ASKS, validator=[kind(int, "a whole number"), at_least(1)])
    ask_tokens: int = field(
        default=_ASK_TOKENS, validator=[kind(int, "a whole number"), at_least(0)]
    )
    repair: bool = field(default=True, validator=kind(bool, "true or false"))
    timeout_s: float | None = field(
        default=None, converter=as_float, validator=or_none(and_(number, _above_zero))
    )
    images: str | tuple[str, ...] = field(default=(), converter=_as_texts)
    format_instruction: str | None = field(default=None, converter=_empty_for_false)
    tools: tuple[Tool, ...] = field(default=(), converter=_as_tools)
    max_tool_rounds: int = field(default=8, validator=[kind(int, "a whole number"), at_least(1)])
    tool_timeout_s: float | None = field(
        default=60.0, converter=as_float, validator=or_none(and_(number, _above_zero))
    )
    mode: Mode = field(default="live", validator=[one_of(*get_args(Mode)), _without_tools])
    batch_retry: Mode = field(default="live", validator=one_of(*get_args(Mode)))
    max_wait_s: float | None = field(
        default=None, converter=as_float, validator=or_none(and_(number, _above_zero))
    )
    instruction: str | None = field(init=False, repr=False)
    reader: Callable[[Any], Any] | None = field(init=False, repr=False)
    user_template: Template = field(init=False, repr=False)
    image_expressions: tuple[Expression, ...] = field(init=False, repr=False)
    system_template: Template | None = field(init=False, repr=False)

    @reader.default
    def _reader(self) -> Callable[[Any], Any] | None:
        return _reader_of(self.input, self.input)

    @instruction.default
    def _instruction(self) -> str | None:
        if not self.format_instruction:
            return self.format_instruction
        if self.output is None:
            raise LLMInvalidRequestError(
                f"{self.id}.format_instruction is given, and there is no output; say output, or "
                "leave it out",
                param=f"{self.id}.format_instruction",
            )
        template = Template(self.format_instruction, f"{self.id}.format_instruction")
        return template.render({"schema": as_json(asked_schema_of(self.output)).decode()})

    @user_template.default
    def _user_template(self) -> Template:
        return Template(self.user, f"{self.id}.user")

    @image_expressions.default
    def _image_expressions(self) -> tuple[Expression, ...]:
        return expressions_of(self.images, f"{self.id}.images")

    @system_template.default
    def _system_template(self) -> Template | None:
        return None if self.system is None else Template(self.system, f"{self.id}.system")

    def signature(self) -> object:
        from attrs import asdict

        signed: list[object] = [
            "step",
            self.engine,
            self.user,
            self.system,
            None if self.output is None else schema_of(self.output),
            asdict(self.sampling),
            # What it was where nothing was said, so that journals of that time go on.
            2 if self.asks == _ASKS else self.asks,
            self.repair,
            *([["images", self.images]] if self.images else []),
        ]
        # What is not given has no place here: a step without it is what it was before there was it.
        if self.ask_tokens != _ASK_TOKENS:
            signed.append(self.ask_tokens)
        more: dict[str, object] = {}
        if self.format_instruction is not None:
            more["format_instruction"] = self.format_instruction
        if self.tools:
            more["tools"] = [each.signature() for each in self.tools]
            more["max_tool_rounds"] = self.max_tool_rounds
        return [*signed, more] if more else signed


@frozen(kw_only=True, eq=False)
class Apply(Node):
    """A function of the value that comes, plain or async.

    ``how`` is ``one`` (it gives one value), ``many`` (it gives several, each of which goes on by
    itself) or ``filter`` (it says whether the value goes on). ``version`` stands for its code where
    that cannot be read, or where what it calls has changed.

    ``input`` is what it is handed, and ``output`` what it gives (of ``many``, each). Where they are
    not said the function's annotations are taken: ``takes`` and ``gives``.
    """

    function: Callable[[Any], Any]
    how: How = field(default="one", validator=one_of(*get_args(How)))
    input: Output = None
    output: Output = None
    version: str = ""
    takes: Output = field(init=False, repr=False)
    gives: Output = field(init=False, repr=False)
    reader: Callable[[Any], Any] | None = field(init=False, repr=False)
    """Makes what the function is handed of a value's JSON; None, where that is the same."""

    @takes.default
    def _takes(self) -> Output:
        return taken(self.function) if self.input is None else self.input

    @gives.default
    def _gives(self) -> Output:
        if self.how == "filter" or self.output is not None:
            return self.output
        return given(self.function, many=self.how == "many")

    @reader.default
    def _reader(self) -> Callable[[Any], Any] | None:
        return _reader_of(self.input, self.takes)

    def signature(self) -> object:
        return ["apply", self.how, self.version, code_of(self.function)]


@frozen(kw_only=True, eq=False)
class Branch(Node):
    """Sends each value down one path: that which ``choose`` names, or down none for None.

    What ``choose`` is handed is what its annotation says, as with Apply.
    """

    choose: Callable[[Any], str | None]
    paths: Mapping[str, Path | Node]
    version: str = ""
    takes: Output = field(init=False, repr=False)
    reader: Callable[[Any], Any] | None = field(init=False, repr=False)

    @takes.default
    def _takes(self) -> Output:
        return taken(self.choose)

    @reader.default
    def _reader(self) -> Callable[[Any], Any] | None:
        return _reader_of(None, self.takes)

    def signature(self) -> object:
        return ["branch", self.version, code_of(self.choose), sorted(self.paths)]


@frozen(kw_only=True, eq=False)
class Join(Node):
    """Puts together what the paths before it gave for the same value.

    Its value is a mapping from the id of each path's last node to what that gave. Where a path gave
    nothing (it filtered the value out, or failed), neither does the join; where it is ``partial``,
    only where none gave anything.
    """

    partial: bool = False

    def signature(self) -> object:
        return ["join", self.partial]


def _names_or_function(_: object, attribute: Attribute[Any], value: object) -> None:
    names = (value,) if isinstance(value, str) else value
    if callable(value) or (
        isinstance(names, tuple) and names and all(isinstance(n, str) and n for n in names)
    ):
        return
    raise WrongKind(
        f"{attribute.name} is {value!r}; a field's name, a list of such or a function is needed",
        attribute,
    )


@frozen(kw_only=True, eq=False)
class Reduce(Node):
    """Brings together the values that have something in common, and gives one value for each group.

    ``by`` says to which group a value belongs: the name of a field (or of anything else that a
    template sees, as ``row.customer``), several names, or a function of the value. ``function`` makes
    one value of the list of a group's values, plain or async; without one, that list is the value.
    Groups come in the order in which the first of each came, and what groups have in common is the
    ``id`` and the ``row`` of what comes behind. All that stands before runs first. ``input`` is the
    type of one value of a group, ``output`` of what the function gives; else its annotations count.
    """

    by: str | tuple[str, ...] | Callable[[Any], Any] = field(
        converter=_as_names,
        validator=_names_or_function,
    )
    function: Callable[[list[Any]], Any] | None = None
    input: Output = None
    output: Output = None
    version: str = ""
    takes: Output = field(init=False, repr=False)
    gives: Output = field(init=False, repr=False)
    reader: Callable[[Any], Any] | None = field(init=False, repr=False)
    by_reader: Callable[[Any], Any] | None = field(init=False, repr=False)

    @takes.default
    def _takes(self) -> Output:
        if self.input is not None or self.function is None:
            return self.input
        return each_taken(self.function)

    @gives.default
    def _gives(self) -> Output:
        if self.output is not None or self.function is None:
            return self.output
        return given(self.function)

    @reader.default
    def _reader(self) -> Callable[[Any], Any] | None:
        return _reader_of(self.input, self.takes)

    @by_reader.default
    def _by_reader(self) -> Callable[[Any], Any] | None:
        return _reader_of(None, taken(self.by)) if callable(self.by) else None

    def signature(self) -> object:
        by = code_of(self.by) if callable(self.by) else self.by
        return ["reduce", by, self.version, self.function and code_of(self.function)]


@frozen
class Group:
    """Paths beside one another; each gets every value that comes to the group.

    ``ways`` are they by the id of the node that each ends with, or by their place where a path ends
    with a group, which cannot be joined.
    """

    paths: tuple[Path, ...]
    ways: Mapping[str, Path] = field(init=False, repr=False, eq=False)

    @ways.default
    def _named_ways(self) -> Mapping[str, Path]:
        return {
            each.places[-1].id if isinstance(each.places[-1], Node) else str(place): each
            for place, each in enumerate(self.paths)
        }

    def __or__(self, other: Node | Path) -> Group:
        return Group((*self.paths, Path.of(other)))

    def join(self, id: str, *, partial: bool = False) -> Path:
        """This group, and a join of its paths behind it."""
        return Path((self, Join(id=id, partial=partial)))


@frozen
class Path:
    """Places one behind the other."""

    places: tuple[Node | Group, ...]

    @classmethod
    def of(cls, what: Node | Path | Group) -> Path:
        """``what`` as a path."""
        return what if isinstance(what, Path) else cls((what,))

    def __rshift__(self, other: Node | Path | Group) -> Path:
        return Path((*self.places, *Path.of(other).places))

    def __or__(self, other: Node | Path) -> Group:
        return Group((self, Path.of(other)))

    def join(self, id: str, *, partial: bool = False) -> Path:
        """This path, with a join behind the group that it ends with."""
        return self >> Join(id=id, partial=partial)


def _reader_of(said: Output, takes: Output) -> Callable[[Any], Any] | None:
    if takes is None or (said is None and is_plain(takes)):
        return None
    from headrace.client.structured.kinds import kind_of

    return kind_of(takes).build


def asked_schema_of(output: Output) -> Mapping[str, Any]:
    """The JSON Schema by which a model is asked for it, always an object's."""
    from headrace.client.structured.kinds import kind_of

    return kind_of(output).schema


def schema_of(output: Output) -> Mapping[str, Any]:
    """The JSON Schema of a type; raises LLMInvalidRequestError for what has none."""
    from headrace.client.structured.kinds import kind_of

    return kind_of(output).own_schema
