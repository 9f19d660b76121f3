"""What a run would ask and cost, reckoned from its first rows: nobody is asked for it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from attrs import define, field

from headrace.backends.tokens import count_here
from headrace.chains.graph import Chain
from headrace.chains.look import once_a_row
from headrace.chains.nodes import Branch, Group, Node, Path, Step
from headrace.chains.prices import Prices
from headrace.chains.reading import Row
from headrace.chains.running import RunSettings
from headrace.chains.runs import NAME, read_run
from headrace.chains.spending import Spent
from headrace.chains.values import Item
from headrace.client.requests import as_request
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.messages import LLMMessage

_SHOWN = 3
_COUNTED = 100
_USUAL_ANSWER_TOKENS = 256


@define
class _StepEstimate:
    """What is reckoned of one step: tokens of its usual prompt and answer, and of its longest one."""

    step: Step
    first: list[dict[str, Any]] = field(factory=list)
    prompt_tokens: float = 0.0
    answer_tokens: float = 0.0
    most_answer_tokens: int | None = None
    seconds: float | None = None


def estimate(
    chain: Chain, settings: RunSettings, rows: Callable[[], Iterable[Row]]
) -> dict[str, Any]:
    """The first prompts of each step that needs no answer of another one, and for all ``rows`` what
    requests, tokens, US dollars and seconds to expect; with what was assumed. Ready for JSON."""
    head, count, unreadable = _counted(rows())
    seen = _seen_before(settings)
    assumed: list[str] = []
    steps: list[_StepEstimate] = []
    answers: dict[str, float] = {}
    models = {each.name: each.model for each in settings.engines}
    firsts = _firsts(chain.path)
    for step in [node for node in chain.nodes if isinstance(node, Step)]:
        model = models.get(step.engine, step.engine)
        prompts = _prompts(step, head, first=step.id in firsts)
        found = _of_step(step, model, prompts, len(head), seen, answers, assumed)
        found.first = [
            {"id": row.id, "system": system, "user": user}
            for row, (user, system) in zip(head[:_SHOWN], prompts, strict=False)
        ]
        answers[step.id] = found.answer_tokens
        steps.append(found)
    once = once_a_row(chain)
    unsure = [each.step.id for each in steps if each.step.id not in once]
    if unsure:
        assumed.append(
            f"each row comes to {', '.join(unsure)} once; how often it does is known only then"
        )
    assumed.append("nothing was done before, no answer is asked for twice, and no call fails")
    prices = Prices({each.name: each for each in settings.engines})
    return {
        "chain": chain.name,
        "nodes": [node.id for node in chain.nodes],
        "rows": count,
        "rows_unreadable": unreadable,
        "first": steps[0].first if steps else [],
        "steps": [_told(each, prices, count) for each in steps],
        "estimate": _whole(steps, prices, count, settings.concurrency),
        "assumed": assumed,
    }


def _counted(rows: Iterable[Row]) -> tuple[list[Row], int, int]:
    """The first rows that can be read, how many there are, and how many cannot be."""
    head: list[Row] = []
    count = unreadable = 0
    for row in rows:
        count += 1
        if row.wrong is not None:
            unreadable += 1
        elif len(head) < _COUNTED:
            head.append(row)
    return head, count, unreadable


def _seen_before(settings: RunSettings) -> Mapping[str, Spent]:
    """What the steps of earlier attempts in the same folder used."""
    if not (settings.run_dir / NAME).exists():
        return {}
    note = read_run(settings.run_dir)
    return note.earlier.and_then(note.now).spent


def _of_step(
    step: Step,
    model: str,
    prompts: list[tuple[str, str | None]],
    rows: int,
    seen: Mapping[str, Spent],
    answers: Mapping[str, float],
    assumed: list[str],
) -> _StepEstimate:
    found = _StepEstimate(step, most_answer_tokens=step.sampling.max_tokens)
    before = seen.get(step.id)
    answered = before.calls - before.failed if before is not None else 0
    if prompts and len(prompts) == rows:
        found.prompt_tokens = sum(_tokens(*each, model) for each in prompts) / len(prompts)
        assumed.append(f"{step.id}: the first {len(prompts)} prompts are as long as all others")
    elif before is not None and answered:
        found.prompt_tokens = before.prompt_tokens / answered
        assumed.append(f"{step.id}: prompts are as long as those seen in this folder")
    else:
        source = (step.user, step.system)
        names = step.user_template.names()
        found.prompt_tokens = _tokens(*source, model) + sum(
            tokens for name, tokens in answers.items() if name in names
        )
        assumed.append(
            f"{step.id}: its prompts hang on answers, and are as long as their template and those"
        )
    if step.images:
        assumed.append(
            f"{step.id}: its images take no tokens, for what they take is known only then"
        )
    if before is not None and answered:
        found.answer_tokens = before.completion_tokens / answered
        found.seconds = before.seconds / answered
        assumed.append(f"{step.id}: answers are as long and as quick as {answered} seen before")
    elif step.sampling.max_tokens is not None:
        found.answer_tokens = step.sampling.max_tokens
        assumed.append(f"{step.id}: each answer takes all of its max_tokens")
    else:
        found.answer_tokens = _USUAL_ANSWER_TOKENS
        assumed.append(
            f"{step.id}: answers have {_USUAL_ANSWER_TOKENS} tokens, since no max_tokens bounds them"
        )
    return found


def _firsts(path: Path) -> frozenset[str]:
    """The steps to which a row itself comes."""
    place = path.places[0]
    if isinstance(place, Step):
        return frozenset({place.id})
    ways: Iterable[Path | Node] = ()
    if isinstance(place, Group):
        ways = place.paths
    elif isinstance(place, Branch):
        ways = place.paths.values()
    return frozenset().union(*(_firsts(Path.of(way)) for way in ways))


def _prompts(step: Step, rows: list[Row], *, first: bool) -> list[tuple[str, str | None]]:
    """Those for ``rows`` up to one that hangs on what an earlier step gives."""
    prompts = []
    for row in rows:
        seen = Item(row.number, row.value, (), row.value if first else {}, {}).seen()
        try:
            system = None if step.system_template is None else step.system_template.render(seen)
            prompts.append((step.user_template.render(seen), system))
        except LLMInvalidRequestError:  # or the row lacks something, which is its own fault
            break
    return prompts


def _tokens(user: str, system: str | None, model: str) -> int:
    messages = [LLMMessage(role="user", content=user)]
    if system is not None:
        messages.insert(0, LLMMessage(role="system", content=system))
    return count_here(as_request(messages, None, None, {}), model).tokens


def _told(found: _StepEstimate, prices: Prices, rows: int) -> dict[str, Any]:
    usd = _usd(found, prices, rows, found.answer_tokens)
    return {
        "id": found.step.id,
        "engine": found.step.engine,
        "first": found.first,
        "requests": rows,
        "prompt_tokens": round(found.prompt_tokens * rows),
        "completion_tokens": round(found.answer_tokens * rows),
        "usd": None if usd is None else f"{usd:f}",
        "seconds_a_request": None if found.seconds is None else round(found.seconds, 4),
    }


def _whole(
    steps: list[_StepEstimate], prices: Prices, rows: int, concurrency: int
) -> dict[str, Any]:
    usual = [_usd(each, prices, rows, each.answer_tokens) for each in steps]
    most = [
        None
        if each.most_answer_tokens is None
        else _usd(each, prices, rows, each.most_answer_tokens)
        for each in steps
    ]
    seconds: float | None = 0.0
    for each in steps:
        if seconds is not None:
            seconds = None if each.seconds is None else seconds + each.seconds * rows
    return {
        "requests": rows * len(steps),
        "prompt_tokens": round(sum(each.prompt_tokens * rows for each in steps)),
        "completion_tokens": round(sum(each.answer_tokens * rows for each in steps)),
        "usd": _sum(usual),
        "usd_at_most": _sum(most),
        "seconds": None if seconds is None else round(seconds / concurrency, 1),
    }


def _usd(found: _StepEstimate, prices: Prices, rows: int, answer_tokens: float) -> Decimal | None:
    one = prices.of(found.step.engine, round(found.prompt_tokens), round(answer_tokens))
    return None if one is None else one * rows


def _sum(amounts: list[Decimal | None]) -> str | None:
    known = [each for each in amounts if each is not None]
    return f"{sum(known, Decimal(0)):f}" if len(known) == len(amounts) else None
