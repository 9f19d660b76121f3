"""What a mock server is told to do: read once, from flags and YAML, into frozen objects.

Durations and token counts stay as they were written (see ``amounts``), so that what is shown is
what was said; ``server`` reads them when it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from attrs import asdict, field, frozen

from headrace.bench.mock.amounts import read_counts, read_duration, read_durations
from headrace.contracts.convert import from_plain, from_yaml, to_plain
from headrace.contracts.errors import LLMInvalidRequestError

Kind: TypeAlias = Literal["error", "stall", "reset", "cut", "not_json", "endless", "no_usage"]
KINDS: tuple[Kind, ...] = get_args(Kind)


def _said(read: Callable[[Any], object]) -> Any:
    """A text that ``read`` understands, or nothing."""

    def check(_: object, attribute: Any, value: object) -> None:
        if value is None:
            return
        try:
            read(value)
        except ValueError as wrong:
            raise ValueError(str(wrong), attribute) from wrong

    return check


def _above(least: float, *, itself: bool = False) -> Any:
    """A number above ``least`` (or ``itself`` that), or nothing."""

    def check(_: object, attribute: Any, value: float | None) -> None:
        if value is not None and not (value > least or (itself and value == least)):
            word = "at least" if itself else "above"
            raise ValueError(f"{value}, must be {word} {least:g}", attribute)

    return check


def _within(least: float, most: float) -> Any:
    def check(_: object, attribute: Any, value: float) -> None:
        if not least <= value <= most:
            raise ValueError(f"{value}, must be {least:g} to {most:g}", attribute)

    return check


def _shares(_: object, attribute: Any, faults: tuple[Fault, ...]) -> None:
    whole = sum(each.share for each in faults)
    if whole > 1 + 1e-9:
        raise ValueError(f"the shares make {whole:g}; together they are at most 1", attribute)


@frozen(kw_only=True)
class Fault:
    """What goes wrong with a ``share`` of the requests; each request has one fault at most.

    ``error`` answers with ``status``, and with ``retry_after_s`` where that is set. ``stall`` pauses
    for ``lasts``, ``reset`` ends the connection by RST and ``cut`` in good order but without the
    answer's end, all three when ``after`` tokens were sent (half of them, if left out). ``not_json``
    is an answer that no reader of the format understands, ``endless`` a stream without end,
    ``no_usage`` an answer without token counts.
    """

    kind: Kind
    share: float = field(default=1.0, validator=_within(0, 1))
    status: int = field(default=500, validator=_within(400, 599))
    retry_after_s: float | None = field(default=None, validator=_above(0, itself=True))
    lasts: str = field(default="1s", validator=_said(read_duration))
    after: int | None = field(default=None, validator=_above(0, itself=True))


@frozen(kw_only=True)
class Freeze:
    """The whole server stands still for ``lasts``, once in ``every``."""

    lasts: str = field(default="1s", validator=_said(read_duration))
    every: str = field(default="5s", validator=_said(read_duration))

    def __attrs_post_init__(self) -> None:
        if read_duration(self.every) <= read_duration(self.lasts):
            raise ValueError(f"lasts is {self.lasts}, must be less than every, {self.every}")


@frozen(kw_only=True)
class SlowStart:
    """Times to first token are ``factor`` times as long at first, falling evenly over ``lasts``."""

    factor: float = field(default=5.0, validator=_above(1, itself=True))
    lasts: str = field(default="10s", validator=_said(read_duration))


@frozen(kw_only=True)
class MockSettings:
    """What a mock server does.

    ``ttft`` is from a request's arrival (or from when a slot was free) to the first token, ``itl``
    between two tokens; a whole answer takes as long as its stream would. ``tokens`` is an answer's
    length, where the request does not ask for less. ``model`` names the models there are (any name
    is answered where it is empty), ``key`` what callers must show. At most ``slots`` requests are
    served at once, in the order of their arrival, and each one beside adds ``itl_per_stream`` to
    every gap. ``rate_limit`` is requests a second, above which 429 is said. Connections are refused
    for the first ``refuse_for``. ``exact`` spins for the last part of each wait.
    """

    ttft: str = field(default="0ms", validator=_said(read_durations))
    itl: str = field(default="0ms", validator=_said(read_durations))
    tokens: str | int = field(default=16, validator=_said(read_counts))
    model: tuple[str, ...] = ()
    key: str | None = field(default=None, repr=False)
    seed: int = 0
    dimensions: int = field(default=8, validator=_within(1, 16384))
    slots: int | None = field(default=None, validator=_above(1, itself=True))
    itl_per_stream: str = field(default="0ms", validator=_said(read_duration))
    rate_limit: float | None = field(default=None, validator=_above(0))
    faults: tuple[Fault, ...] = field(default=(), validator=_shares)
    freeze: Freeze | None = None
    slow_start: SlowStart | None = None
    refuse_for: str = field(default="0s", validator=_said(read_duration))
    exact: bool = False


def read_settings(path: Path | None, overrides: Mapping[str, object]) -> MockSettings:
    """The settings in the YAML file ``path``, with ``overrides`` over them.

    LLMInvalidRequestError names the field that is wrong, and the file.
    """
    settings = MockSettings()
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise LLMInvalidRequestError(f"cannot read {path}: {error}") from error
        try:
            settings = from_yaml(text, MockSettings) if text.strip() else settings
        except LLMInvalidRequestError as error:
            raise LLMInvalidRequestError(f"{path}: {error}", param=error.param) from error
    return override(settings, overrides)


def override(settings: MockSettings, changes: Mapping[str, object]) -> MockSettings:
    """``settings`` with ``changes``; LLMInvalidRequestError names the field that is wrong."""
    if not changes:
        return settings
    plain = to_plain(settings)
    assert isinstance(plain, dict)
    return from_plain({**plain, **{n: to_plain(v) for n, v in changes.items()}}, MockSettings)


def read_fault(text: str, *, share: float | None = None) -> Fault:
    """The fault that ``KIND[:SHARE][,name=value...]`` says; ``share`` is that of one without."""
    head, *rest = text.split(",")
    kind, found, part = head.strip().partition(":")
    fields: dict[str, Any] = {}
    if found:
        fields["share"] = _share(part)
    elif share is not None:
        fields["share"] = share
    if kind not in KINDS:
        raise LLMInvalidRequestError(
            f"unknown fault {kind!r}; known: {', '.join(KINDS)}", param="faults"
        )
    readers: dict[str, Callable[[str], object]] = {
        "status": int,
        "retry_after_s": float,
        "lasts": str,
        "after": int,
    }
    for each in rest:
        name, _, value = each.partition("=")
        name = name.strip()
        if name not in readers:
            known = ", ".join(readers)
            raise LLMInvalidRequestError(
                f"unknown field {name!r} of fault {kind!r}; known: {known}", param="faults"
            )
        try:
            fields[name] = readers[name](value.strip())
        except ValueError as wrong:
            raise LLMInvalidRequestError(
                f"{name} of fault {kind!r} is {value.strip()!r}; a number is expected",
                param="faults",
            ) from wrong
    try:
        return Fault(kind=kind, **fields)
    except ValueError as wrong:
        name = getattr(wrong.args[1], "name", "") if len(wrong.args) > 1 else ""
        raise LLMInvalidRequestError(
            f"{name} of fault {kind!r}: {wrong.args[0]}", param="faults"
        ) from wrong


def _share(text: str) -> float:
    said = text.strip()
    try:
        return float(said[:-1]) / 100 if said.endswith("%") else float(said)
    except ValueError as wrong:
        raise LLMInvalidRequestError(
            f"share {said!r} is no number; a fraction such as 0.05, or 5%, is expected",
            param="faults",
        ) from wrong


def read_freeze(text: str) -> Freeze:
    """The freeze that ``LASTS/EVERY`` says."""
    lasts, found, every = text.partition("/")
    if not found:
        raise _not_said("freeze", text, "LASTS/EVERY, such as 1s/5s")
    try:
        return Freeze(lasts=lasts.strip(), every=every.strip())
    except ValueError as wrong:
        raise _not_said("freeze", text, f"LASTS/EVERY, such as 1s/5s ({wrong.args[0]})") from wrong


def read_slow_start(text: str) -> SlowStart:
    """The slow start that ``FACTOR/LASTS`` says."""
    factor, _, lasts = text.partition("/")
    try:
        return SlowStart(factor=float(factor), lasts=lasts.strip())
    except ValueError as wrong:
        right = f"FACTOR/LASTS, such as 5/10s ({wrong.args[0]})"
        raise _not_said("slow_start", text, right) from wrong


def shown(settings: MockSettings) -> dict[str, object]:
    """The settings that are not as they are without any, in plain values; the key is not shown."""
    usual, told = asdict(MockSettings()), asdict(settings)
    always = ("ttft", "itl", "tokens", "seed")
    found = {n: v for n, v in told.items() if n in always or v != usual[n]}
    return {n: "set" if n == "key" else v for n, v in found.items()}


def _not_said(name: str, text: str, right: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(f"{name} is {text!r}; expected {right}", param=name)
