"""Token counts: adding them up, and finding the ones that follow from the others.

``None`` is unknown and stays so: a sum with an unknown in it is unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

import attrs

from headrace.contracts.responses import Usage


def add_usages(usages: Iterable[Usage]) -> Usage:
    """The tokens of several calls together, field by field.

    A field that is unknown in one of them is unknown in the sum; the sum of no calls is zero.
    """
    listed = list(usages)
    return Usage(**{f.name: _sum(getattr(u, f.name) for u in listed) for f in attrs.fields(Usage)})


def fill_totals(usage: Usage) -> Usage:
    """``usage`` with the totals that follow from the rest; what was reported is never changed.

    prompt = uncached + cache read + cache write, or total - completion; completion = text +
    reasoning, or total - prompt; total = prompt + completion. A difference below zero means that
    the reported counts contradict each other, and fills nothing.
    """
    prompt, completion, total = usage.prompt_tokens, usage.completion_tokens, usage.total_tokens
    if prompt is None:
        prompt = _sum(
            (
                usage.input_uncached_tokens,
                usage.input_cache_read_tokens,
                usage.input_cache_write_tokens,
            )
        )
    if completion is None:
        completion = _sum((usage.output_text_tokens, usage.output_reasoning_tokens))
    if prompt is None:
        prompt = _rest(total, completion)
    if completion is None:
        completion = _rest(total, prompt)
    if total is None:
        total = _sum((prompt, completion))
    return attrs.evolve(
        usage, prompt_tokens=prompt, completion_tokens=completion, total_tokens=total
    )


def split_parts(usage: Usage) -> Usage:
    """``usage`` with the one missing part of input or output that follows from the others.

    uncached + cache read + cache write = prompt; text + reasoning = completion. Where two parts
    of one side are unknown, both stay so; a difference below zero fills nothing.
    """
    uncached, read, write = input_parts(usage)
    text, reasoning = output_parts(usage)
    return attrs.evolve(
        usage,
        input_uncached_tokens=uncached,
        input_cache_read_tokens=read,
        input_cache_write_tokens=write,
        output_text_tokens=text,
        output_reasoning_tokens=reasoning,
    )


def input_parts(usage: Usage) -> tuple[int | None, ...]:
    """Uncached, cache read and cache write tokens, as ``split_parts`` has them."""
    return _last_part(
        usage.prompt_tokens,
        usage.input_uncached_tokens,
        usage.input_cache_read_tokens,
        usage.input_cache_write_tokens,
    )


def output_parts(usage: Usage) -> tuple[int | None, ...]:
    """Text and reasoning tokens, as ``split_parts`` has them."""
    return _last_part(
        usage.completion_tokens, usage.output_text_tokens, usage.output_reasoning_tokens
    )


def _sum(counts: Iterable[int | None]) -> int | None:
    total = 0
    for count in counts:
        if count is None:
            return None
        total += count
    return total


def _rest(whole: int | None, part: int | None) -> int | None:
    if whole is None or part is None or whole < part:
        return None
    return whole - part


def _last_part(whole: int | None, *parts: int | None) -> tuple[int | None, ...]:
    known = [p for p in parts if p is not None]
    if len(known) != len(parts) - 1:
        return parts
    rest = _rest(whole, sum(known))
    return tuple(rest if p is None else p for p in parts)
