"""A text is written, judged, and written anew with what the judge said, until it is good enough.

A chain has no way back, so a loop is written out: as many rounds as there may be, each a branch of the
one before. A text that is good goes down no further round, and costs nothing more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

import headrace
from headrace.chains import Apply, Branch, Chain, Step
from headrace.chains.nodes import Path

headrace.register_engine(
    name="small",
    backend="openai-compatible",
    model="smollm2-135m-instruct",
    endpoint="http://127.0.0.1:8000/v1",
)
SHORT = headrace.LLMChatParams(temperature=0, max_tokens=36)
ROUNDS = 3
GOOD = 4


@dataclass
class Verdict:
    """What the judge says of a text."""

    points: Annotated[int, Meta(ge=1, le=5)]
    advice: Annotated[str, Meta(max_length=80)]


def verdict(judged: dict[str, Any]) -> str:
    """Whether a text goes on to the next round."""
    return "good" if judged["verdict"]["points"] >= GOOD else "poor"


def as_it_is(text: str) -> str:
    """A text that goes past the judge."""
    return text


def as_judged(judged: dict[str, Any]) -> dict[str, Any]:
    """A text that is good enough, with what was said of it."""
    return judged


def called(round: int) -> Any:
    """What one round's paths gave, by the same names in each round."""

    def name(judged: dict[str, Any]) -> dict[str, Any]:
        text, said = judged[f"text_{round}"], judged[f"verdict_{round}"]
        return {"round": round, "text": text.strip(), "verdict": said}

    return name


def from_round(round: int) -> Path:
    """This round, and those that may follow."""
    ask = "Write one sentence that advertises {{ row.product }}."
    if round > 1:
        ask += " Better than: {{ text }} Mind this: {{ verdict.advice }}"
    written = Step(id=f"draft_{round}", engine="small", user=ask, sampling=SHORT)
    judged = Step(
        id=f"verdict_{round}",
        engine="small",
        user="From 1 to 5, how good is this advertisement, and what is missing? {{ value }}",
        output=Verdict,
        sampling=SHORT,
    )
    kept = Apply(id=f"text_{round}", function=as_it_is)
    path = written >> (kept | judged).join(f"judged_{round}")
    path = path >> Apply(id=f"round_{round}", function=called(round), version=str(round))
    if round == ROUNDS:
        return path
    good = Apply(id=f"good_{round}", function=as_judged)
    return path >> Branch(
        id=f"enough_{round}", choose=verdict, paths={"good": good, "poor": from_round(round + 1)}
    )


chain = Chain(from_round(1), name="judge_and_improve")
