"""What stands on the command line is read as it is meant, or refused with what would be right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePath

import pytest

from headrace.bench.load.flags import read_burst, read_length, read_ramp, read_steps, read_trace
from headrace.contracts.load import Bursts, Length, Ramp, Replay, Steps


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("128", Length(mean=128)),
        ("normal:128,20", Length(shape="normal", mean=128, spread=20)),
        ("normal:128,20[16..256]", Length(shape="normal", mean=128, spread=20, least=16, most=256)),
        ("lognormal:128,0.5[..900]", Length(shape="lognormal", mean=128, spread=0.5, most=900)),
        ("lognormal:128,0.5[4..]", Length(shape="lognormal", mean=128, spread=0.5, least=4)),
        ("uniform:50..150", Length(shape="uniform", mean=100, least=50, most=150)),
    ],
)
def test_a_length_is_a_number_or_a_distribution(text: str, length: Length) -> None:
    assert read_length(text) == length


def test_arrivals_are_read() -> None:
    assert read_burst("32/5s") == Bursts(size=32, every_s=5)
    assert read_burst("32/0.5") == Bursts(size=32, every_s=0.5)
    assert read_ramp("1..50/60s") == Ramp(begin=1, end=50, over_s=60)
    assert read_ramp("0.5..0/60s", poisson=False) == Ramp(
        begin=0.5, end=0, over_s=60, poisson=False
    )
    assert read_steps("5,10,20/30s") == Steps(rates=(5, 10, 20), each_s=30)
    assert read_trace("a/b.csv") == Replay(path=PurePath("a/b.csv"))
    assert read_trace("a:b.csv", 2) == Replay(path=PurePath("a:b.csv"), speed=2)
    assert read_trace("b.csv:azure") == Replay(path=PurePath("b.csv"), form="azure")


@pytest.mark.parametrize(
    ("read", "text", "complaint"),
    [
        (read_length, "", "--input-tokens '': expected 128, normal:128,20"),
        (read_length, "many", "--input-tokens 'many': expected 128"),
        (read_length, "0", "0 is not above 0"),
        (read_length, "inf", "expected 128"),
        (read_length, "normal:128", "expected 128, normal:128,20"),
        (read_length, "normal:128,-1", "-1 is below 0"),
        (read_length, "gauss:1,2", "expected 128, normal:128,20"),
        (read_length, "uniform:50", "expected 128"),
        (read_length, "uniform:150..50", "the smaller one first"),
        (read_length, "uniform:1.5..50", "1.5 is no whole number"),
        (read_length, "128[9..3]", "the smaller one first"),
        (read_length, "128[0..3]", "bounds from 1 on"),
        (read_burst, "32", "--burst '32': expected SIZE/SECONDS, as 32/5s"),
        (read_burst, "1.5/5s", "1.5 is no whole number"),
        (read_burst, "32/0s", "0 is not above 0"),
        (read_ramp, "1/60s", "--ramp '1/60s': expected BEGIN..END/SECONDS"),
        (read_ramp, "0..0/60s", "a rate above 0 at either end"),
        (read_steps, "5,,10/3s", "--steps '5,,10/3s': expected RATE,RATE,.../SECONDS"),
        (read_steps, "/3s", "expected RATE"),
        (
            read_trace,
            "b.csv:asure",
            "--trace 'b.csv:asure': expected FILE or FILE:FORM with a form",
        ),
        (read_trace, "", "the name of a file"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_flag(
    read: Callable[[str], object], text: str, complaint: str
) -> None:
    with pytest.raises(ValueError) as refused:
        read(text)
    assert complaint in str(refused.value)
