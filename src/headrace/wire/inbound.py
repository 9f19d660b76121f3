"""What every format's ``read_request`` gives: the request, and how its answer is to be sent."""

from __future__ import annotations

from attrs import evolve, frozen

from headrace.contracts.requests import LLMRequest


@frozen(kw_only=True)
class Inbound:
    """A caller's request as read from the wire.

    ``stream`` asks for the answer in pieces and ``include_usage`` for token counts at a stream's
    end. A text completion may bring several ``prompts``; ``request`` then has the first of them.
    ``tells_cache`` is whether the answer should say which tokens of the prompt were had from a
    cache: some formats say so only to those who asked for caching. ``tells_reasoning`` is whether the
    caller is shown what was thought. ``dropped`` names what was asked
    of the face itself and is not done by it, and fields that our words have no place for.
    """

    request: LLMRequest
    stream: bool = False
    include_usage: bool = False
    prompts: tuple[str | tuple[int, ...], ...] = ()
    tells_cache: bool = True
    tells_reasoning: bool = True
    dropped: tuple[str, ...] = ()


def requests(inbound: Inbound) -> tuple[LLMRequest, ...]:
    """The single requests in ``inbound``: one for each prompt."""
    if len(inbound.prompts) < 2:
        return (inbound.request,)
    return tuple(evolve(inbound.request, prompt=prompt) for prompt in inbound.prompts)
