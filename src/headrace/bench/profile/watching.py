"""Knowing when a model looks at a picture: hooks around its vision encoder and projector.

A GPU is not made to wait for that: events in its stream mark where a part begins and ends there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

from headrace.bench.profile import needs

_EYES = frozenset(
    {
        "vision_tower",
        "vision_model",
        "vision_encoder",
        "visual",
        "vision_embed_tokens",
        "sam_model",
        "image_encoder",
        "multi_modal_projector",
        "connector",
        "projector",
        "mm_projector",
        "aligner",
    }
)


class Spans(Protocol):
    """Seconds between ``begin`` and ``end``, added up until they are taken."""

    def begin(self) -> None: ...

    def end(self) -> None: ...

    def take(self) -> float: ...


class HostSpans:
    """By the host's clock: for a processor, which has done what it has returned from."""

    def __init__(self) -> None:
        self._began = self._seconds = 0.0

    def begin(self) -> None:
        self._began = time.perf_counter()

    def end(self) -> None:
        self._seconds += time.perf_counter() - self._began

    def take(self) -> float:
        seconds, self._seconds = self._seconds, 0.0
        return seconds


class EventSpans:
    """By pairs of events that the device reaches in its own time, each from ``mark``.

    Whoever takes the seconds has waited for the device before.
    """

    def __init__(self, mark: Callable[[], Any]) -> None:
        self._mark = mark
        self._began: Any = None
        self._pairs: list[tuple[Any, Any]] = []

    def begin(self) -> None:
        self._began = self._mark()

    def end(self) -> None:
        self._pairs.append((self._began, self._mark()))

    def take(self) -> float:
        pairs, self._pairs = self._pairs, []
        return sum(float(began.elapsed_time(ended)) for began, ended in pairs) / 1e3


def spans_of(device: str) -> Spans:
    """What times spans on ``device``."""
    if not device.startswith("cuda"):
        return HostSpans()
    cuda = needs.torch().cuda

    def mark() -> Any:
        event = cuda.Event(enable_timing=True)
        event.record(cuda.current_stream(device))
        return event

    return EventSpans(mark)


class Watch:
    """Adds up the seconds inside the model's vision parts; ``inside`` says that one is running.

    While ``marking``, each part stands in the profiler's events under ``MARK``; on CUDA it is a range
    that nsys shows.
    """

    MARK = "headrace: vision"

    def __init__(self, model: Any, device: str) -> None:
        self.inside = False
        self.marking = False
        self._spans = spans_of(device)
        self._nvtx = needs.torch().cuda.nvtx if device.startswith("cuda") else None
        self._mark: Any = None
        self.parts: list[str] = []
        self.modules: list[Any] = []
        self._handles: list[Any] = []
        for name, module in model.named_modules():
            last = name.rpartition(".")[2]
            if last not in _EYES or any(name.startswith(f"{part}.") for part in self.parts):
                continue
            self.parts.append(name)
            self.modules.append(module)
            self._handles.append(module.register_forward_pre_hook(self._enter))
            self._handles.append(module.register_forward_hook(self._leave, always_call=True))

    def _enter(self, *_: Any) -> None:
        self.inside = True
        if self.marking:
            self._mark = needs.torch().profiler.record_function(self.MARK)
            self._mark.__enter__()
        if self._nvtx is not None:
            self._nvtx.range_push("vision")
        self._spans.begin()

    def _leave(self, *_: Any) -> None:
        self._spans.end()
        if self._nvtx is not None:
            self._nvtx.range_pop()
        self.inside = False
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None

    def take(self) -> float:
        """The seconds since it was last asked; the device has to be waited for before."""
        return self._spans.take()

    def close(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
