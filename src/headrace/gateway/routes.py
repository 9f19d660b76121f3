"""From a model's name to the lane that serves it, and what is filled in on the way."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

from attrs import field, frozen

from headrace.contracts.capabilities import ModelInfo, Serves
from headrace.contracts.errors import LLMContextLengthError, LLMModelNotFoundError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.quick import changed
from headrace.contracts.requests import LLMRequest
from headrace.traffic.fallback import Alternative
from headrace.traffic.hedge import Hedging
from headrace.traffic.lane import Lane
from headrace.traffic.routing.asking import Asking
from headrace.traffic.routing.choice import Choice, Chosen


@frozen(kw_only=True)
class Defaults:
    """What is used where a request does not say; ``None`` leaves it to the backend."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    system_prompt: str | None = None
    context_tokens: int | None = None

    def fill(self, request: LLMRequest) -> LLMRequest:
        """``request`` with its gaps filled."""
        changes: dict[str, Any] = {}
        if request.max_tokens is None and self.max_tokens is not None:
            changes["max_tokens"] = self.max_tokens
        if request.temperature is None and self.temperature is not None:
            changes["temperature"] = self.temperature
            # The two belong together: a caller who sets one has chosen their own sampling.
            if request.top_p is None and self.top_p is not None:
                changes["top_p"] = self.top_p
        if (
            self.system_prompt is not None
            and request.prompt is None
            and request.messages
            and request.messages[0].role != "system"
        ):
            opening = LLMMessage(role="system", content=self.system_prompt)
            changes["messages"] = (opening, *request.messages)
        if self.context_tokens is not None and (request.max_tokens or 0) > self.context_tokens:
            raise LLMContextLengthError(
                f"max_tokens is {request.max_tokens}, but the context of this model, prompt and "
                f"answer together, is {self.context_tokens} tokens",
                param="max_tokens",
            )
        return changed(request, **changes) if changes else request


NO_DEFAULTS = Defaults()
_MOST_NAMES = 1000
_LONGEST_NAME = 200


@frozen(kw_only=True)
class Way(Alternative):
    """One backend of a route: the ``format`` in which it is asked, and what is filled in for it.

    ``model`` is its own name for the model; ``None`` where it is asked for the one that
    ``Route.asked`` says.
    """

    format: str = "openai"
    defaults: Defaults = NO_DEFAULTS


@frozen(kw_only=True)
class Route:
    """A model as callers see it, or the several of one backend that ``patterns`` name.

    ``passes_names`` hands the caller's own name for the model on: the backend knows it. ``format``
    is the one in which the backend is asked. Where several backends answer for it, ``choice``
    orders them, and ``lane`` is the first of them; where one does, ``limited`` says whether it is
    within a caller's limits. ``serves`` is what it is there for, as far as that is known.
    """

    model: str
    lane: Lane
    patterns: tuple[str, ...] = ()
    passes_names: bool = False
    defaults: Defaults = NO_DEFAULTS
    created: int = 0
    format: str = "openai"
    choice: Choice[Way] | None = None
    serves: Serves = "chat"
    hedging: Hedging | None = None
    """How its calls are asked a second time where their first token is late."""
    limited: Choice[Way] | None = None
    alone: Chosen[Way] = field(init=False, repr=False, eq=False)
    """Where one backend answers: that one."""

    @alone.default
    def _only_way(self) -> Chosen[Way]:
        return Chosen((Way(lane=self.lane, format=self.format, defaults=self.defaults),))

    def choose(self, asking: Asking) -> Chosen[Way]:
        """Whom to ask for one call, the best first; to ask for them is to take one's turn.

        Raises LLMCapabilityError where none is within the caller's limits.
        """
        if self.choice is not None:
            return self.choice.choose(asking)
        if asking.profile is None or self.limited is None:
            return self.alone
        return self.limited.choose(asking)

    def lanes(self) -> tuple[Lane, ...]:
        """All that may answer for it, whether well or ill, in the configuration's order."""
        return (self.lane,) if self.choice is None else self.choice.lanes

    def asked(self, name: str | None) -> str:
        """The model's name for the backend, and in its answer, where callers say ``name``."""
        return name if self.passes_names and name is not None else self.model

    def fits(self, name: str) -> bool:
        """Whether ``name`` is this model, by its name or a pattern."""
        return name == self.model or any(fnmatchcase(name, pattern) for pattern in self.patterns)


class Routes:
    """The models that the gateway answers for, the default one first."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)
        self._known: dict[str, Route] = {route.model: route for route in self._routes}
        self._fitting: dict[str, Route] = {}
        """By names that callers said, of those that fit a pattern; bounded, as they say what they like."""

    def __iter__(self) -> Iterator[Route]:
        return iter(self._routes)

    def lanes(self) -> list[tuple[Lane, tuple[str, ...]]]:
        """Every lane once, with the names and patterns that lead to it."""
        found: dict[int, tuple[Lane, list[str]]] = {}
        for route in self._routes:
            for lane in route.lanes():
                _, names = found.setdefault(id(lane), (lane, []))
                names += [route.model, *route.patterns]
        return [(lane, tuple(dict.fromkeys(names))) for lane, names in found.values()]

    def needed(self) -> list[tuple[Lane, ...]]:
        """The lanes of each route, of which one has to answer; those that stand in for one another
        need not each be there for their own names.
        """
        several = [route.lanes() for route in self._routes if route.choice is not None]
        covered = {id(lane) for lanes in several for lane in lanes}
        alone = [route.lane for route in self._routes if route.choice is None]
        return [*several, *((lane,) for lane in alone if id(lane) not in covered)]

    def pick(self, model: str | None) -> Route:
        """The route of ``model``, or the first where none is named.

        Raises LLMModelNotFoundError that names the nearest known model.
        """
        if model is None:
            return self._routes[0]
        known = self._known.get(model)
        if known is not None:
            return known
        known = self._fitting.get(model)
        if known is not None:
            return known
        for route in self._routes:
            if route.fits(model):
                if len(self._fitting) < _MOST_NAMES and len(model) <= _LONGEST_NAME:
                    self._fitting[model] = route
                return route
        # What Ollama's clients add to a name that says no tag.
        untagged = self._known.get(model.removesuffix(":latest"))
        if untagged is not None:
            return untagged
        names = list(self._known)
        near = get_close_matches(model, names, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
        raise LLMModelNotFoundError(
            f"there is no model {model[:200]!r} here; {hint}", param="model"
        )

    def models(self) -> tuple[ModelInfo, ...]:
        """What ``/v1/models`` lists."""
        return tuple(
            ModelInfo(
                model_id=route.model,
                created=route.created,
                owned_by=route.lane.backend.name
                if route.patterns and route.choice is None
                else "headrace",
                max_context_tokens=route.defaults.context_tokens,
                serves=route.serves,
            )
            for route in self._routes
        )
