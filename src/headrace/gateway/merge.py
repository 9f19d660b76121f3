"""Several calls' answers as the choices of one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from attrs import evolve

from headrace.contracts.errors import LLMError
from headrace.contracts.responses import LLMDelta, Usage
from headrace.numbers.usage import add_usages

_MOST_AHEAD = 64


async def side_by_side(
    runs: Sequence[AsyncGenerator[LLMDelta, None]], *, answers_each: int, same_prompt: int
) -> AsyncGenerator[LLMDelta, None]:
    """The pieces of all ``runs`` as they come, and the sum of their usage at the end.

    Choice ``i * answers_each + j`` is the j-th answer of run ``i``. Each group of ``same_prompt``
    runs asks the same prompt, whose tokens count once, as providers bill several answers. The
    first run that fails ends the others.
    """
    ready: asyncio.Queue[LLMDelta | LLMError | None] = asyncio.Queue(_MOST_AHEAD)
    usages: dict[int, Usage] = {}

    async def pump(place: int, run: AsyncGenerator[LLMDelta, None]) -> None:
        try:
            async with aclosing(run):
                async for delta in run:
                    if delta.usage_delta is not None:
                        usages[place] = delta.usage_delta
                    index = place * answers_each + delta.index
                    await ready.put(evolve(delta, index=index, usage_delta=None))
            await ready.put(None)
        except LLMError as error:
            await ready.put(error)

    pumps = [asyncio.create_task(pump(place, run)) for place, run in enumerate(runs)]
    try:
        open_runs = len(pumps)
        while open_runs:
            item = await ready.get()
            if item is None:
                open_runs -= 1
            elif isinstance(item, LLMError):
                raise item
            else:
                yield item
        if usages:
            yield LLMDelta(usage_delta=_total(usages, same_prompt))
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


def _total(usages: dict[int, Usage], same_prompt: int) -> Usage:
    counted = []
    for place, usage in sorted(usages.items()):
        if place % same_prompt:
            usage = evolve(  # noqa: PLW2901  the prompt was counted with the group's first run
                usage,
                prompt_tokens=0,
                total_tokens=usage.completion_tokens,
                input_uncached_tokens=0,
                input_cache_read_tokens=0,
                input_cache_write_tokens=0,
            )
        counted.append(usage)
    return add_usages(counted)
