"""Python functions as tools that a model may call: what they are called with, and what they answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from inspect import Parameter, getdoc, isawaitable, iscoroutinefunction, signature
from typing import Any, cast

from attrs import field, frozen
from msgspec import DecodeError, json

from headrace.chains.annotations import annotations_of
from headrace.chains.code import code_of
from headrace.chains.values import as_json, plain
from headrace.client.structured.kinds import Unfit, kind_of
from headrace.contracts.errors import LLMInvalidRequestError, OutputProblem
from headrace.contracts.messages import ToolSpec
from headrace.wire.schema_problems import checker

_BY_NAME = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


class ToolFailed(Exception):
    """A call came to nothing; the words are for the model."""


@frozen
class Tool:
    """A function that a model may call: its name, what its docstring says first, its parameters."""

    function: Callable[..., Any]
    spec: ToolSpec
    _builders: Mapping[str, Callable[[Any], Any]] = field(repr=False)
    _problems: Callable[[Any], tuple[OutputProblem, ...]] = field(repr=False)

    @classmethod
    def of(cls, function: object) -> Tool:
        """``function`` as a tool; LLMInvalidRequestError where a model could not call it."""
        if isinstance(function, cls):
            return function
        if not callable(function):
            raise LLMInvalidRequestError(
                f"a tool is {function!r}, must be a function", param="tools"
            )
        return _tool_of(cast("Callable[..., Any]", function))

    def __reduce__(self) -> tuple[Callable[[object], Tool], tuple[Callable[..., Any]]]:
        return Tool.of, (self.function,)  # for another process

    @property
    def name(self) -> str:
        """What the model calls it by."""
        return self.spec.name

    def signature(self) -> object:
        """All that what it answers depends on; JSON."""
        return [self.name, self.spec.description, self.spec.input_schema, code_of(self.function)]

    async def call(self, arguments_json: str, timeout_s: float | None) -> str:
        """What it answers, as text; raises ToolFailed with what the model should know.

        A plain function runs in a thread. One that takes longer than ``timeout_s`` is left to end
        by itself.
        """
        given = self._arguments(arguments_json)
        try:
            async with asyncio.timeout(timeout_s):
                if iscoroutinefunction(self.function):
                    made = await self.function(**given)
                else:
                    made = await _in_a_thread(self.function, given)
                    if isawaitable(made):
                        made = await made
        except TimeoutError as error:
            raise ToolFailed(f"{self.name} took longer than {timeout_s:g} s") from error
        except Exception as error:
            # Whatever it raises is an answer too: the model may call it in another way.
            raise ToolFailed(f"{type(error).__name__}: {error}") from error
        return made if isinstance(made, str) else as_json(plain(made)).decode()

    def _arguments(self, arguments_json: str) -> dict[str, Any]:
        try:
            said = json.decode(arguments_json or "{}")
        except (DecodeError, UnicodeError, RecursionError) as error:
            raise ToolFailed(f"the arguments are not JSON: {error}") from error
        problems = self._problems(said)
        if problems:
            raise ToolFailed(
                f"{self.name} cannot be called so: "
                + "; ".join(f"{each.path}: {each.message}" for each in problems)
            )
        try:
            return {name: self._builders[name](value) for name, value in said.items()}
        except Unfit as error:
            raise ToolFailed(f"{self.name} cannot be called so: {error}") from error


def _tool_of(function: Callable[..., Any]) -> Tool:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        raise LLMInvalidRequestError(
            f"the tool {function!r} has no name of its own; write it with def", param="tools"
        )
    hints = annotations_of(function)
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    required, definitions, builders = [], {}, {}
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise LLMInvalidRequestError(
            f"the tool {name} does not tell its parameters; write a function of your own around it",
            param="tools",
        ) from error
    for each in parameters:
        if each.kind not in _BY_NAME:
            raise LLMInvalidRequestError(
                f"the tool {name} has the parameter {each}, which cannot be given by name",
                param="tools",
            )
        kind = kind_of(hints.get(each.name, Any))
        own = dict(kind.own_schema)
        definitions.update(own.pop("$defs", {}))
        schema["properties"][each.name] = own
        builders[each.name] = kind.build
        if each.default is Parameter.empty:
            required.append(each.name)
    if required:
        schema["required"] = required
    if definitions:
        schema["$defs"] = definitions
    said = (getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")
    spec = ToolSpec(name=name, description=said, input_schema=schema)
    return Tool(function, spec, builders, checker(schema))


async def _in_a_thread(function: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Not one of the loop's own threads: those are waited for at the end, however long they take."""
    loop = asyncio.get_running_loop()
    came: asyncio.Future[Any] = loop.create_future()

    def settle(made: Any, error: BaseException | None) -> None:
        if came.done():  # nobody waits any more
            return
        if error is not None:
            came.set_exception(error)
        else:
            came.set_result(made)

    def work() -> None:
        try:
            ended: tuple[Any, BaseException | None] = (function(**given), None)
        except BaseException as error:  # noqa: BLE001 - it is raised where the call waits
            ended = (None, error)
        try:
            loop.call_soon_threadsafe(settle, *ended)
        except RuntimeError:  # the loop has ended, and with it who waited
            return

    threading.Thread(target=work, name="chain tool", daemon=True).start()
    return await came
