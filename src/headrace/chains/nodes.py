"""What a chain is made of: steps that ask a model, functions, branches and joins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import getsource
from typing import Any, Literal, TypeAlias, get_args

from attrs import Attribute, field, frozen
from attrs.validators import and_

from headrace.chains.templates import Template
from headrace.contracts._checks import (
    WrongAmount,
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
    given = [
        name for name in ("tools", "tool_choice", "response_schema") if getattr(sampling, name)
    ]
    if given:
        raise WrongAmount(
            f"{attribute.name}.{given[0]} is given, and a step calls no tools and has its schema as "
            "output; leave it out",
            attribute,
        )


def _above_zero(_: object, attribute: Attribute[Any], value: float) -> None:
    if value <= 0:
        raise WrongAmount(f"{attribute.name} is {value!r}; it must be > 0", attribute)


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


@frozen(kw_only=True, eq=False)
class Step(Node):
    """Asks ``engine`` for each value that comes.

    ``user`` and ``system`` are templates. What the answer is read as is ``output``; text, if it is
    None. ``input`` describes what must come; anything, if it is None. ``asks`` is how often a model
    is asked at most until its answer is what was wanted, ``ask_tokens`` how many tokens the asks
    after the first may take together, and ``timeout_s`` how long all that may take, retries and
    waiting for the engine included.

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
    mode: Mode = field(default="live", validator=one_of(*get_args(Mode)))
    batch_retry: Mode = field(default="live", validator=one_of(*get_args(Mode)))
    max_wait_s: float | None = field(
        default=None, converter=as_float, validator=or_none(and_(number, _above_zero))
    )
    user_template: Template = field(init=False, repr=False)
    system_template: Template | None = field(init=False, repr=False)

    @user_template.default
    def _user_template(self) -> Template:
        return Template(self.user, f"{self.id}.user")

    @system_template.default
    def _system_template(self) -> Template | None:
        return None if self.system is None else Template(self.system, f"{self.id}.system")

    def signature(self) -> object:
        from attrs import asdict

        signed = [
            "step",
            self.engine,
            self.user,
            self.system,
            None if self.output is None else schema_of(self.output),
            asdict(self.sampling),
            # What it was where nothing was said, so that journals of that time go on.
            2 if self.asks == _ASKS else self.asks,
            self.repair,
        ]
        return signed if self.ask_tokens == _ASK_TOKENS else [*signed, self.ask_tokens]


@frozen(kw_only=True, eq=False)
class Apply(Node):
    """A function of the value that comes, plain or async.

    ``how`` is ``one`` (it gives one value), ``many`` (it gives several, each of which goes on by
    itself) or ``filter`` (it says whether the value goes on). ``version`` stands for its code where
    that cannot be read, or where what it calls has changed.
    """

    function: Callable[[Any], Any]
    how: How = field(default="one", validator=one_of(*get_args(How)))
    input: Output = None
    output: Output = None
    version: str = ""

    def signature(self) -> object:
        return ["apply", self.how, self.version, _code_of(self.function)]


@frozen(kw_only=True, eq=False)
class Branch(Node):
    """Sends each value down one path: that which ``choose`` names, or down none for None."""

    choose: Callable[[Any], str | None]
    paths: Mapping[str, Path | Node]
    version: str = ""

    def signature(self) -> object:
        return ["branch", self.version, _code_of(self.choose), sorted(self.paths)]


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


def _code_of(function: Callable[..., Any]) -> str:
    try:
        return getsource(function)
    except (OSError, TypeError):
        return getattr(function, "__qualname__", repr(type(function)))


def schema_of(output: Output) -> Mapping[str, Any]:
    """The JSON Schema of a type; raises LLMInvalidRequestError for what has none."""
    from headrace.client.structured.kinds import kind_of

    return kind_of(output).own_schema
