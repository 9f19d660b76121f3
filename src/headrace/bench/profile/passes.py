"""One input through the model, timed: prepare, read, then a token a step with the cache.

The loop is written out, so that the time to the first token and between tokens are those of the
model and of nothing around it. On a GPU every stage ends when the device has finished.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from attrs import frozen

from headrace.bench.profile import needs
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.loading import Loaded
from headrace.bench.profile.preparing import prepare
from headrace.bench.profile.stopping import Stop, ends_if_asked
from headrace.bench.profile.watching import Watch
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.profile_report import StageName


@frozen(kw_only=True)
class Timed:
    """One input once. ``began`` is an instant of the monotonic clock, all others are seconds.

    ``vision_s`` lies inside ``prefill_s``. ``steps_s`` are the decode steps, each a token more.
    """

    input: str
    began: float
    preprocess_s: float
    vision_s: float
    prefill_s: float
    decode_s: float
    whole_s: float
    steps_s: tuple[float, ...]
    input_tokens: int
    tokens: tuple[int, ...]
    pictures: int
    cache_bytes: int | None
    finish_reason: Literal["stop", "length"]

    @property
    def first_token_s(self) -> float:
        """Seconds to the first token: preparing the input, and reading it."""
        return self.preprocess_s + self.prefill_s

    @property
    def token_s(self) -> float | None:
        """Seconds a token after the first: decode / steps; None where there was one token."""
        return self.decode_s / len(self.steps_s) if self.steps_s else None


class Runner:
    """Runs inputs through one model. ``stage`` is told whoever asks meanwhile, as memory's sampler."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded
        self.stage: StageName | None = None
        self.watch = Watch(loaded.model, loaded.device)
        self._torch = needs.torch()
        self._ends = _end_tokens(loaded)
        takes = inspect.signature(loaded.model.forward).parameters
        self.last_logits_only = "logits_to_keep" in takes
        self._keep = {"logits_to_keep": 1} if self.last_logits_only else {}
        # transformers 5.24 has named it anew; models that bring their code may have the old name.
        self._cache = "cache" if "cache" in takes else "past_key_values"

    def close(self) -> None:
        self.watch.close()

    def finish(self) -> None:
        """Wait until the device has done what it was told."""
        if self.loaded.on_cuda:
            self._torch.cuda.synchronize(self.loaded.device)

    @contextmanager
    def running(self, stage: StageName) -> Iterator[None]:
        """``stage`` is what runs; on CUDA as a range that nsys shows."""
        self.stage = stage
        if self.loaded.on_cuda:
            self._torch.cuda.nvtx.range_push(stage)
        try:
            yield
        finally:
            if self.loaded.on_cuda:
                self._torch.cuda.nvtx.range_pop()
            self.stage = None

    def once(self, given: Given, most: int, stop: Stop = lambda: False) -> Timed:
        """``given`` through the model, at most ``most`` tokens; ends early only where ``stop`` says."""
        now = time.perf_counter
        ends_if_asked(stop)
        with self._torch.inference_mode():
            began = now()
            with self.running("preprocess"):
                inputs = prepare(self.loaded, given)
                self.finish()
            prepared = now()
            self.watch.take()
            with self.running("prefill"):
                token, cache = self.prefill(inputs)
                tokens = [int(token)]
            read = now()
            steps = []
            last = read
            with self.running("decode"):
                while len(tokens) < most and tokens[-1] not in self._ends:
                    ends_if_asked(stop)
                    token, cache = self.step(token, cache)
                    tokens.append(int(token))
                    instant = now()
                    steps.append(instant - last)
                    last = instant
            done = now()
        return Timed(
            input=given.name,
            began=began,
            preprocess_s=prepared - began,
            vision_s=self.watch.take(),
            prefill_s=read - prepared,
            decode_s=last - read,
            whole_s=done - began,
            steps_s=tuple(steps),
            input_tokens=int(inputs["input_ids"].shape[-1]),
            tokens=tuple(tokens),
            pictures=0 if given.picture is None else 1,
            cache_bytes=_cache_bytes(cache),
            finish_reason="stop" if tokens[-1] in self._ends else "length",
        )

    def prefill(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """The first pass: the next token, not yet waited for, and the cache."""
        out = self.loaded.model(**inputs, use_cache=True, **self._keep)
        cache = getattr(out, self._cache, None)
        if cache is None:
            raise LLMCapabilityError(
                f"{self.loaded.name} keeps no cache of keys and values, so it is no model that is "
                "profiled here; one that generates text token by token is needed"
            )
        return out.logits[:, -1].argmax(-1, keepdim=True), cache

    def step(self, token: Any, cache: Any) -> tuple[Any, Any]:
        """One token more."""
        given = {"input_ids": token, self._cache: cache}
        out = self.loaded.model(**given, use_cache=True, **self._keep)
        return out.logits[:, -1].argmax(-1, keepdim=True), getattr(out, self._cache)

    def text(self, tokens: tuple[int, ...]) -> str:
        """What ``tokens`` say; without a tokenizer their numbers."""
        tokenizer = self.loaded.tokenizer
        if tokenizer is None:
            return " ".join(str(token) for token in tokens)
        return str(tokenizer.decode(list(tokens), skip_special_tokens=True))


def _end_tokens(loaded: Loaded) -> frozenset[int]:
    """The tokens that end an answer; none for random weights, which would end anywhere."""
    if loaded.random:
        return frozenset()
    settings = getattr(loaded.model, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    if found is None:
        found = getattr(loaded.tokenizer, "eos_token_id", None)
    if found is None:
        return frozenset()
    return frozenset([found] if isinstance(found, int) else found)


def _cache_bytes(cache: Any) -> int | None:
    """Bytes of the keys and values as they lie in memory; None for a cache of another kind."""
    layers = getattr(cache, "layers", None)
    if layers is None:
        return None
    held = 0
    for layer in layers:
        for name in ("keys", "values"):
            tensor = getattr(layer, name, None)
            if tensor is not None:
                held += tensor.untyped_storage().nbytes()
    return held
