"""Arrivals and lengths as they are written on the command line.

Every error names the flag, what was given and what would be right.
"""

from __future__ import annotations

import re
from math import isfinite
from pathlib import PurePath
from typing import NoReturn, get_args, get_type_hints

from headrace.contracts.load import Bursts, Length, Ramp, Replay, Steps

_BOUNDS = re.compile(r"(?P<rest>.*?)\[(?P<least>\d*)\.\.(?P<most>\d*)\]")
_LENGTH = "128, normal:128,20, lognormal:128,0.5 or uniform:50..150, each with [least..most] behind"
_FORMS = get_args(get_type_hints(Replay)["form"])


def read_length(text: str, flag: str = "--input-tokens") -> Length:
    """``128``, ``normal:128,20``, ``lognormal:128,0.5`` or ``uniform:50..150``, then bounds.

    Bounds are ``[least..most]``, and either may be left out: ``normal:128,20[16..]``.
    """
    rest, least, most = text.strip(), 1, None
    bounds = _BOUNDS.fullmatch(rest)
    if bounds is not None:
        rest = bounds["rest"]
        least = int(bounds["least"] or 1)
        most = int(bounds["most"]) if bounds["most"] else None
    shape, colon, values = rest.partition(":")
    if not colon:
        length = Length(mean=_above_0(flag, text, rest, _LENGTH), least=least, most=most)
    elif shape in ("normal", "lognormal"):
        mean, comma, spread = values.partition(",")
        if not comma:
            _wrong(flag, text, _LENGTH)
        length = Length(
            shape="normal" if shape == "normal" else "lognormal",
            mean=_above_0(flag, text, mean, _LENGTH),
            spread=_from_0(flag, text, spread, _LENGTH),
            least=least,
            most=most,
        )
    elif shape == "uniform" and bounds is None:
        first, dots, last = values.partition("..")
        if not dots:
            _wrong(flag, text, _LENGTH)
        least, most = _whole(flag, text, first, _LENGTH), _whole(flag, text, last, _LENGTH)
        length = Length(shape="uniform", mean=(least + most) / 2, least=least, most=most)
    else:
        _wrong(flag, text, _LENGTH)
    if length.least < 1 or (most is not None and most < least):
        _wrong(flag, text, "bounds from 1 on, the smaller one first")
    return length


def read_burst(text: str, flag: str = "--burst") -> Bursts:
    """``32/5s``: 32 requests together, every 5 seconds."""
    right = "SIZE/SECONDS, as 32/5s"
    size, every_s = _over(flag, text, right)
    return Bursts(size=_whole(flag, text, size, right), every_s=every_s)


def read_ramp(text: str, flag: str = "--ramp", *, poisson: bool = True) -> Ramp:
    """``1..50/60s``: from 1 to 50 requests a second within 60 seconds."""
    right = "BEGIN..END/SECONDS, as 1..50/60s"
    rates, over_s = _over(flag, text, right)
    first, dots, last = rates.partition("..")
    if not dots:
        _wrong(flag, text, right)
    begin, end = _from_0(flag, text, first, right), _from_0(flag, text, last, right)
    if begin == end == 0:
        _wrong(flag, text, "a rate above 0 at either end")
    return Ramp(begin=begin, end=end, over_s=over_s, poisson=poisson)


def read_steps(text: str, flag: str = "--steps", *, poisson: bool = True) -> Steps:
    """``5,10,20/30s``: 5, 10 and 20 requests a second, each for 30 seconds."""
    right = "RATE,RATE,.../SECONDS, as 5,10,20/30s"
    rates, each_s = _over(flag, text, right)
    return Steps(
        rates=tuple(_from_0(flag, text, rate, right) for rate in rates.split(",")),
        each_s=each_s,
        poisson=poisson,
    )


def read_trace(text: str, speed: float = 1.0, flag: str = "--trace") -> Replay:
    """``FILE``, or ``FILE:form`` where the form cannot be told by looking."""
    path, _, form = text.rpartition(":")
    if not path or form not in _FORMS:
        # A colon may be the file's own; what looks like a form is a slip (write FILE:auto else).
        if path and form.isalpha():
            _wrong(flag, text, f"FILE or FILE:FORM with a form of {', '.join(_FORMS)}")
        path, form = text, "auto"
    if not path:
        _wrong(flag, text, "the name of a file")
    return Replay(path=PurePath(path), form=form, speed=speed)  # type: ignore[arg-type]


def _over(flag: str, text: str, right: str) -> tuple[str, float]:
    """What stands before the last slash, and the seconds behind it."""
    before, slash, seconds = text.strip().rpartition("/")
    if not slash or not before:
        _wrong(flag, text, right)
    return before, _above_0(flag, text, seconds.removesuffix("s"), right)


def _number(flag: str, text: str, part: str, right: str) -> float:
    try:
        number = float(part)
    except ValueError:
        _wrong(flag, text, right)
    if not isfinite(number):
        _wrong(flag, text, right)
    return number


def _above_0(flag: str, text: str, part: str, right: str) -> float:
    number = _number(flag, text, part, right)
    if number <= 0:
        _wrong(flag, text, f"{right}; {part} is not above 0")
    return number


def _from_0(flag: str, text: str, part: str, right: str) -> float:
    number = _number(flag, text, part, right)
    if number < 0:
        _wrong(flag, text, f"{right}; {part} is below 0")
    return number


def _whole(flag: str, text: str, part: str, right: str) -> int:
    number = _above_0(flag, text, part, right)
    if number != int(number):
        _wrong(flag, text, f"{right}; {part} is no whole number")
    return int(number)


def _wrong(flag: str, text: str, right: str) -> NoReturn:
    raise ValueError(f"{flag} {text!r}: expected {right}")
