"""Models that bring their own way of being asked: ``infer(tokenizer, prompt, image_file, ...)``.

DeepSeek-OCR's class is the pattern. Such an ``infer`` prepares a picture and its prompt as only it
knows how, and calls ``generate``. What it hands over is taken there, and goes through the loop of
``passes`` like any other model's input: so its stages are timed as all others are.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from headrace.bench.profile import needs
from headrace.bench.profile.inputs import Given
from headrace.bench.profile.stopping import is_out_of_memory
from headrace.contracts.errors import LLMCapabilityError

_ASKED_BY = frozenset({"tokenizer", "prompt", "image_file"})
_MARK = "<image>"


class _HandedOver(Exception):
    """Leaves ``infer`` once it has called ``generate``."""


def infers(model: Any) -> bool:
    """Whether ``model`` has an ``infer`` that takes a tokenizer, a prompt and a picture's file."""
    own = getattr(model, "infer", None)
    return callable(own) and inspect.signature(own).parameters.keys() >= _ASKED_BY


def side_of(config: Mapping[str, Any]) -> int | None:
    """The side of the one view that a picture is shown as, in pixels."""
    vision = config.get("vision_config")
    side = vision.get("image_size") if isinstance(vision, Mapping) else None
    return side if isinstance(side, int) else None


def handed_over(
    model: Any, tokenizer: Any, given: Given, *, name: str, device: str, side: int | None
) -> dict[str, Any]:
    """What the model's ``infer`` gives its own first pass for ``given``."""
    taken: dict[str, Any] = {}

    def generate(input_ids: Any, **more: Any) -> None:
        takes = inspect.signature(model.forward).parameters
        taken.update({key: value for key, value in more.items() if key in takes})
        taken["input_ids"] = input_ids
        raise _HandedOver

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(sys.stderr),
        _cuda_is(device),
    ):
        model.generate = generate
        try:
            model.infer(tokenizer, **_asked(model, given, folder, side))
        except _HandedOver:
            pass
        except Exception as wrong:
            # Code that comes with a model may raise whatever it likes.
            if is_out_of_memory(wrong):
                raise
            raise LLMCapabilityError(
                f"{name} brings an infer() that failed on {given.name}: "
                f"{type(wrong).__name__}: {wrong}"
            ) from wrong
        finally:
            del model.generate
    if not taken:
        raise LLMCapabilityError(
            f"{name} brings an infer() that never called generate() for {given.name}; only one that "
            "does is profiled"
        )
    taken.pop("use_cache", None)  # ours to say
    return taken


def _asked(model: Any, given: Given, folder: str, side: int | None) -> dict[str, Any]:
    """One view of the whole picture and no crops: the same work for every picture of a folder."""
    prompt = given.text
    if given.picture is not None and _MARK not in prompt:
        prompt = f"{_MARK}\n{prompt}"
    wanted: dict[str, Any] = {
        "prompt": prompt,
        "image_file": "" if given.picture is None else str(given.picture),
        "output_path": folder,
        "crop_mode": False,
        "save_results": False,
        "test_compress": False,
        "eval_mode": True,
    }
    if side is not None:
        wanted |= {"base_size": side, "image_size": side}
    takes = inspect.signature(model.infer).parameters
    return {key: value for key, value in wanted.items() if key in takes}


@contextlib.contextmanager
def _cuda_is(device: str) -> Iterator[None]:
    """``tensor.cuda()``, which such code has written out, goes to the device that was asked for."""
    tensor = needs.torch().Tensor
    before = tensor.cuda
    tensor.cuda = lambda self, *_, **__: self.to(device)
    try:
        yield
    finally:
        tensor.cuda = before
