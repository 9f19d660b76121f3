"""What each stage of a run needs at least: FLOPs and bytes by the analytic model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profile_report import StageName
from headrace.numbers.architecture import (
    Conventions,
    Cost,
    Model,
    decode,
    forward,
    kv_bytes_per_token,
    memory_bytes,
    model_from_config,
    prefill,
    total,
)
from headrace.numbers.architecture.conventions import describe
from headrace.numbers.architecture.shapes import Both, Shape
from headrace.numbers.architecture.tree import add

if TYPE_CHECKING:
    from headrace.bench.profile.passes import Timed


@frozen(kw_only=True)
class Work:
    """FLOPs and bytes of a stage; None where they are not known."""

    flops: float | None = None
    bytes: float | None = None


@frozen(kw_only=True)
class Seen:
    """What the vision parts do for one picture, counted by torch, where no formula is known."""

    flops: float
    weight_bytes: int


@frozen(kw_only=True)
class Account:
    """What is known of a model's work: its shape, the rules of the count, and what is missing.

    ``language_only`` is a shape of the language model alone, beside vision parts that are not known.
    """

    model: Model | None
    rules: Conventions
    language_only: bool = False
    seen: Seen | None = None
    reason: str | None = None

    @property
    def kv_per_token(self) -> float | None:
        return None if self.model is None else kv_bytes_per_token(self.model, self.rules)

    @property
    def conventions(self) -> tuple[str, ...]:
        return () if self.model is None else describe(self.rules)


def account_of(
    config: Mapping[str, Any], *, name: str, dtype: str, last_logits_only: bool
) -> Account:
    """What the configuration tells; the language model alone where the whole is not known."""
    rules = Conventions(
        logits="last" if last_logits_only else "all",
        # transformers caches the latent and makes keys and values of all tokens again in every pass.
        latent="latent",
    )
    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    try:
        return Account(model=model_from_config(plain, name=name, dtype=dtype), rules=rules)
    except LLMInvalidRequestError as unknown:
        reason = unknown.message
    for inner in ("text_config", "language_config"):
        if isinstance(plain.get(inner), Mapping):
            try:
                model = model_from_config(plain[inner], name=name, dtype=dtype)
            except LLMInvalidRequestError as unknown:
                reason = f"{reason}; {inner}: {unknown.message}"
            else:
                return Account(model=model, rules=rules, language_only=True, reason=reason)
    return Account(model=None, rules=rules, reason=reason)


def work_of(account: Account, passes: Sequence[Timed]) -> dict[StageName, Work]:
    """The work of ``passes`` by stage, each of them once; vision's is within prefill's."""
    if account.model is None:
        return {}
    model, rules = account.model, account.rules

    @cache
    def first(tokens: int, pictures: int) -> tuple[Cost, Cost | None]:
        done = forward(model, prefill(tokens), rules)
        front = [total(part) for part in done.tree.parts if part.name in _front(model.shape)]
        eyes = add(front) if front else None
        if eyes is not None and not pictures:
            rest = [p for p in done.tree.parts if p.name not in _front(model.shape)]
            return add(total(part) for part in rest), None
        return done.total, eyes

    @cache
    def later(past: int) -> Cost:
        return forward(model, decode(past), rules).total

    found: dict[StageName, list[Work]] = {"prefill": [], "decode": []}
    for timed in passes:
        whole, eyes = first(timed.input_tokens, timed.pictures)
        work = Work(flops=whole.flops, bytes=memory_bytes(whole))
        if timed.pictures and account.language_only:
            seen = account.seen
            vision = Work() if seen is None else Work(flops=seen.flops, bytes=seen.weight_bytes)
            work = _sum([work, vision])
            found.setdefault("vision", []).append(vision)
        elif eyes is not None:
            found.setdefault("vision", []).append(Work(flops=eyes.flops, bytes=memory_bytes(eyes)))
        found["prefill"].append(work)
        for step in range(len(timed.steps_s)):
            cost = later(timed.input_tokens + step)
            found["decode"].append(Work(flops=cost.flops, bytes=memory_bytes(cost)))
    return {stage: _sum(each) for stage, each in found.items() if each}


def _front(shape: Shape) -> frozenset[str]:
    return frozenset(name for name, _ in shape.front) if isinstance(shape, Both) else frozenset()


def _sum(works: Sequence[Work]) -> Work:
    flops = [work.flops for work in works]
    moved = [work.bytes for work in works]
    return Work(
        flops=None if None in flops else sum(f for f in flops if f is not None),
        bytes=None if None in moved else sum(b for b in moved if b is not None),
    )
