"""A function that is served: what it takes, and how it is run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Executor
from difflib import get_close_matches
from functools import partial
from typing import Any

from attrs import define, field, frozen

from headrace.contracts.capabilities import BackendStatus, ModelInfo
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError
from headrace.contracts.inference import InferProblem, InferRequest, InferResult
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta
from headrace.wire import json as wire_json
from headrace.wire.inference import FunctionInfo

log = logging.getLogger(__name__)

FAILED = "function_failed"


@frozen(kw_only=True)
class Function:
    """``call(input, **parameters)`` gives an output; with ``batch`` it takes a list of inputs and gives
    a list of as many outputs, in which an exception stands for an input that it could not answer.

    It may be a coroutine function; others run in threads, so several at once. What it raises is
    told to the caller where it is an LLMInvalidRequestError; of anything else only its class, unless
    ``tells_errors``.
    """

    call: Callable[..., Any]
    batch: bool = False
    description: str | None = None
    tells_errors: bool = False

    def info(self, name: str, created: int) -> FunctionInfo:
        """How it is listed."""
        told = self.description
        if told is None:
            told = (inspect.getdoc(self.call) or "").partition("\n\n")[0]
        return FunctionInfo(
            model_id=name, created=created, description=told, parameters=takes(self.call)
        )


def takes(call: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of the parameters beside the input; ``None`` where it takes any.

    Raises LLMInvalidRequestError where it is no function of an input.
    """
    if not callable(call):
        raise LLMInvalidRequestError(f"{call!r:.100} is no function", param="functions")
    found = _parameters(call)
    if found is None or any(each.kind is each.VAR_KEYWORD for each in found):
        return None
    return tuple(each.name for each in found if each.kind is not each.VAR_POSITIONAL)


def _parameters(call: Callable[..., Any]) -> list[inspect.Parameter] | None:
    """Those behind the input; ``None`` where nobody can tell (some built-in functions)."""
    try:
        first, *others = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        try:
            inspect.signature(call)
        except (TypeError, ValueError):
            return None
        raise LLMInvalidRequestError(
            f"{call!r:.100} takes no argument; a function that is served takes its input",
            param="functions",
        ) from None
    if first.kind in (first.KEYWORD_ONLY, first.VAR_KEYWORD):
        raise LLMInvalidRequestError(
            f"{call!r:.100} takes its first argument by name only; it is called with its input",
            param="functions",
        )
    return others


@define(kw_only=True, eq=False)
class FunctionBackend:
    """Meets Backend and Infers: one function under a name."""

    name: str
    function: Function
    executor: Executor
    inputs: int = field(default=0, init=False)
    failed_inputs: int = field(default=0, init=False)

    async def infer(self, request: InferRequest, marks: Marks) -> InferResult:
        """The outputs for all of the request's inputs, one after the other."""
        marks.backend = marks.provider = self.name
        self._check(request.parameters)
        self.inputs += len(request.inputs)
        if self.function.batch:
            came = await self._batch(list(request.inputs), request.parameters)
        else:
            came = [await self._one(each, request.parameters) for each in request.inputs]
        outputs: list[object] = []
        problems: list[InferProblem] = []
        for index, each in enumerate(came):
            if isinstance(each, Exception):
                told = self._told(each, request.request_id)
                if request.single:
                    self.failed_inputs += 1
                    raise told from each
                problems.append(InferProblem(index=index, message=str(told)))
                outputs.append(None)
            else:
                outputs.append(each)
        self.failed_inputs += len(problems)
        return InferResult(outputs=tuple(outputs), model_id=self.name, problems=tuple(problems))

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """Nothing: it is asked by values."""
        raise LLMCapabilityError(f"{self.name} is a function, and continues no texts")

    async def models(self) -> tuple[ModelInfo, ...]:
        """Itself."""
        return (ModelInfo(model_id=self.name),)

    async def status(self) -> BackendStatus:
        """That it is there."""
        return BackendStatus(ok=True)

    async def aclose(self) -> None:
        """Nothing of its own to give back."""

    def _check(self, parameters: dict[str, object]) -> None:
        """Refuse what the function does not take, and ask for what it needs."""
        found = _parameters(self.function.call)
        if found is None:
            return
        first = next(iter(inspect.signature(self.function.call).parameters.values()))
        if first.kind is first.POSITIONAL_OR_KEYWORD and first.name in parameters:
            raise LLMInvalidRequestError(
                f"{self.name} takes no parameter {first.name!r}: that is its input",
                param=f"parameters.{first.name}",
                code="unknown_parameter",
            )
        known = [each.name for each in found if each.kind is not each.VAR_KEYWORD]
        if len(known) == len(found):
            for name in parameters:
                if name not in known:
                    near = get_close_matches(name, known, n=1)
                    hint = f"did you mean {near[0]!r}?" if near else f"known: {known or 'none'}"
                    raise LLMInvalidRequestError(
                        f"{self.name} takes no parameter {name[:100]!r}; {hint}",
                        param=f"parameters.{name[:100]}",
                        code="unknown_parameter",
                    )
        for each in found:
            named = each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
            if named and each.default is each.empty and each.name not in parameters:
                raise LLMInvalidRequestError(
                    f"{self.name} needs the parameter {each.name!r}",
                    param=f"parameters.{each.name}",
                    code="missing_required_parameter",
                )

    async def _one(self, value: object, parameters: dict[str, object]) -> object:
        try:
            return _as_json(await self._call(value, parameters))
        except Exception as error:  # noqa: BLE001 - it is another's code; told by its caller
            return error

    async def _batch(self, values: list[object], parameters: dict[str, object]) -> Sequence[object]:
        try:
            came = await self._call(values, parameters)
            if not isinstance(came, (list, tuple)) or len(came) != len(values):
                raise TypeError(
                    f"it was given {len(values)} inputs and gave no list of as many outputs"
                )
        except Exception as error:  # noqa: BLE001 - as above
            return [error] * len(values)
        return [each if isinstance(each, Exception) else _as_json_or_error(each) for each in came]

    async def _call(self, value: object, parameters: dict[str, object]) -> Any:
        call = self.function.call
        if inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(
            getattr(call, "__call__", None)  # noqa: B004 - whether an object's call is a coroutine
        ):
            return await call(value, **parameters)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.executor, partial(call, value, **parameters))

    def _told(self, error: Exception, request_id: str | None) -> LLMError:
        if isinstance(error, LLMInvalidRequestError):
            return error
        log.error(
            "the function %r failed", self.name, exc_info=error, extra={"request_id": request_id}
        )
        what = f": {error}" if self.function.tells_errors else ""
        return LLMError(
            f"the function {self.name!r} failed ({type(error).__name__}){what}; the server's log has "
            "the details under the request id",
            code=FAILED,
        )


def _as_json_or_error(value: object) -> object:
    try:
        return _as_json(value)
    except TypeError as error:
        return error


def _as_json(value: object) -> object:
    """``value`` as JSON has it; an array of numpy's as lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    try:
        wire_json.encode(value)
    except LLMInvalidRequestError as error:
        raise TypeError(f"its output is a {type(value).__name__}: {error}") from error
    return value
