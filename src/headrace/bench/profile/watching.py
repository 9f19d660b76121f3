"""Knowing when a model looks at a picture: hooks around its vision encoder and projector."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

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


class Watch:
    """Adds up the seconds inside the model's vision parts; ``inside`` says that one is running.

    While ``marking``, each part stands in the profiler's events under ``MARK``.
    """

    MARK = "headrace: vision"

    def __init__(self, model: Any, finish: Callable[[], None]) -> None:
        self.seconds = 0.0
        self.inside = False
        self.marking = False
        self._finish = finish
        self._began = 0.0
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
        self._finish()
        self.inside = True
        if self.marking:
            self._mark = needs.torch().profiler.record_function(self.MARK)
            self._mark.__enter__()
        self._began = time.perf_counter()

    def _leave(self, *_: Any) -> None:
        self._finish()
        self.seconds += time.perf_counter() - self._began
        self.inside = False
        if self._mark is not None:
            self._mark.__exit__(None, None, None)
            self._mark = None

    def take(self) -> float:
        """The seconds since it was last asked."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds

    def close(self) -> None:
        """Leave the model as it was."""
        for handle in self._handles:
            handle.remove()
