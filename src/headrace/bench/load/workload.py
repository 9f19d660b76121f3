"""What the requests of a load test say: one after the other, the same for the same seed.

Every conversation is made from the seed and its number alone. So workers divide them among
themselves at no cost, and a run can be repeated from any place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import count
from random import Random
from typing import TypeAlias

from headrace.bench.load.pictures import noise_url
from headrace.bench.load.scenarios import CONVERSATIONS, MAX_TOKENS, PARTS
from headrace.bench.load.synthetic import Counted, Text, draw
from headrace.bench.load.tokenizers import Estimate, Tokenizer
from headrace.contracts.load import Asked, Kind, LoadPlan, Prompts, Replay, Scenarios, Synthetic

QUERY_TOKENS = 16
_DOCUMENTS_OF_A_SCENARIO = 8
_Counter: TypeAlias = Callable[[str], int | None]


def asked(
    plan: LoadPlan, tokenizer: Tokenizer | None = None, *, part: int = 0, parts: int = 1
) -> Iterator[Asked]:
    """The requests of ``plan``; endless, but for the replay of a trace, which ends with it.

    The turns of a conversation follow one another. Of several ``parts`` each worker takes every
    ``parts``-th conversation. A trace brings its lengths along: they are taken in place of the
    workload's, unless that is a file of prompts. Raises ValueError for what cannot be asked.
    """
    if not 0 <= part < parts:
        raise ValueError(f"part must be from 0 to {parts - 1}, and is {part}")
    workload = plan.workload
    if isinstance(workload, Prompts):
        from headrace.bench.load.prompt_files import prompts_of

        return prompts_of(workload, plan, tokenizer, part, parts)
    if isinstance(plan.arrivals, Replay):
        from headrace.bench.load.traces import asked_of_trace

        return asked_of_trace(plan.arrivals, plan, tokenizer, part, parts)
    numbers = count(part, parts)
    match workload:
        case Scenarios():
            return _scenarios(workload, plan, tokenizer, numbers)
        case Synthetic():
            _check(workload)
            return _synthetic(workload, plan, tokenizer or Estimate(), numbers)


def conversations(requests: Iterable[Asked]) -> Iterator[tuple[Asked, ...]]:
    """The same requests by whole conversations, each in the order of its turns."""
    turns: list[Asked] = []
    for one in requests:
        turns.append(one)
        if one.turn == one.turns - 1:
            yield tuple(turns)
            turns = []


def said(
    kind: Kind,
    text: str,
    *,
    images: tuple[str, ...] = (),
    documents: tuple[str, ...] = (),
    **rest: object,
) -> Asked:
    """``text`` as that kind of request has it: a user's message, or a prompt."""
    if kind in ("completions", "embeddings", "rerank"):
        return Asked(prompt=text, documents=documents, **rest)  # type: ignore[arg-type]
    content: object = text
    if images:
        content = [
            {"type": "text", "text": text},
            *({"type": "image_url", "image_url": {"url": url}} for url in images),
        ]
    return Asked(messages=({"role": "user", "content": content},), **rest)  # type: ignore[arg-type]


def as_text(messages: Iterable[dict[str, object]]) -> str:
    """A conversation as one text, for the ways in that take no messages."""
    found = [m for m in messages if isinstance(m.get("content"), str)]
    if len(found) == 1:
        return str(found[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in found)


def _scenarios(
    scenarios: Scenarios, plan: LoadPlan, tokenizer: Tokenizer | None, numbers: Iterable[int]
) -> Iterator[Asked]:
    counts: dict[str, int] = {}

    def counted(text: str) -> int | None:
        if tokenizer is None:
            return None
        if text not in counts:
            counts[text] = tokenizer.count(text)
        return counts[text]

    generates = plan.kind not in ("embeddings", "rerank")
    for number in numbers:
        random = Random(f"{plan.seed} scenario {number}")
        name: str = scenarios.name
        if name == "mixed":
            (name,) = random.choices(list(PARTS), weights=list(PARTS.values()))
        texts = CONVERSATIONS[name]
        messages = random.choice(texts)
        output = MAX_TOKENS[name] if generates else None
        exact = tokenizer is not None and tokenizer.counted
        if plan.kind in ("chat", "responses", "messages"):
            yield Asked(
                messages=tuple(dict(m) for m in messages),
                output_tokens=output,
                input_tokens=_sum(counted, (str(m["content"]) for m in messages)),
                counted=exact,
                scenario=name,
                conversation=number,
            )
            continue
        prompt = as_text(messages)
        documents: tuple[str, ...] = ()
        if plan.kind == "rerank":
            prompt = str(messages[-1]["content"])
            documents = tuple(
                as_text(other) for other in random.sample(texts, _DOCUMENTS_OF_A_SCENARIO)
            )
        yield Asked(
            prompt=prompt,
            documents=documents,
            output_tokens=output,
            input_tokens=_sum(counted, (prompt, *documents)),
            counted=exact,
            scenario=name,
            conversation=number,
        )


def _sum(counted: _Counter, texts: Iterable[str]) -> int | None:
    total = 0
    for text in texts:
        tokens = counted(text)
        if tokens is None:
            return None
        total += tokens
    return total


def _check(synthetic: Synthetic) -> None:
    for name, least in (
        ("prefix_tokens", 0),
        ("prefixes", 1),
        ("turns", 1),
        ("images", 0),
        ("image_px", 1),
        ("documents", 1),
    ):
        value = getattr(synthetic, name)
        if value < least:
            raise ValueError(f"{name} must be {least} or more, and is {value}")


def _synthetic(
    synthetic: Synthetic, plan: LoadPlan, tokenizer: Tokenizer, numbers: Iterable[int]
) -> Iterator[Asked]:
    text = Text(tokenizer, plan.seed)
    generates = plan.kind not in ("embeddings", "rerank")
    turns = synthetic.turns if plan.kind in ("chat", "responses", "messages") else 1
    prefixes: dict[int, Counted] = {}
    for number in numbers:
        random = Random(f"{plan.seed} synthetic {number}")
        prefix = None
        if synthetic.prefix_tokens:
            group = random.randrange(synthetic.prefixes)
            if group not in prefixes:
                prefixes[group] = text.distinct(synthetic.prefix_tokens, group, "prefix")
            prefix = prefixes[group]
        for turn in range(turns):
            tokens = draw(synthetic.input, random)
            output = draw(synthetic.output, random) if generates else None
            place = number * turns + turn
            if plan.kind == "rerank":
                yield _rerank(text, synthetic, tokens, number, random)
                continue
            if prefix and turn == 0:
                # The prefix counts as input; a shorter draw is the prefix and one word.
                made = text.behind(prefix, max(tokens, prefix.tokens + 1), place)
            else:
                made = text.distinct(tokens, place)
            images = tuple(noise_url(synthetic.image_px, random) for _ in range(synthetic.images))
            if images and plan.kind not in ("chat", "responses", "messages"):
                raise ValueError(f"images must be 0 for {plan.kind}, and is {synthetic.images}")
            yield said(
                plan.kind,
                made.text,
                images=images,
                output_tokens=output,
                input_tokens=made.tokens,
                # What a picture comes to is the model's secret.
                counted=tokenizer.counted and not images,
                conversation=number,
                turn=turn,
                turns=turns,
            )


def _rerank(text: Text, synthetic: Synthetic, tokens: int, number: int, random: Random) -> Asked:
    """A short query, and documents of the set length."""
    lengths = [tokens, *(draw(synthetic.input, random) for _ in range(synthetic.documents - 1))]
    query = text.distinct(QUERY_TOKENS, number, "query")
    documents = [
        text.distinct(length, number * synthetic.documents + place, "document")
        for place, length in enumerate(lengths)
    ]
    return Asked(
        prompt=query.text,
        documents=tuple(one.text for one in documents),
        input_tokens=sum(one.tokens for one in (query, *documents)),
        counted=text.tokenizer.counted,
        conversation=number,
    )
