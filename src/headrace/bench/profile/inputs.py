"""What a profiled model is given: pictures with an instruction, or prompts, from one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError

PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
INSTRUCTION = "prompt.txt"
"""A file of this name beside pictures is what the model is told about each of them."""
USUAL_INSTRUCTION = "Describe this picture."
OUR_PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "Write a short letter to a landlord about a broken heater, and ask for a date.",
    "A train leaves at 9:40 and arrives at 13:05. How long does it travel? Explain each step.",
    "Summarise: a water mill takes the fall of a stream to turn a wheel. The wheel drives a shaft, "
    "the shaft drives stones, and the stones grind what the farmers of the valley bring. Above the "
    "mill a weir holds the water back, and a channel, the headrace, carries it to the wheel.",
)


@frozen(kw_only=True)
class Given:
    """One input: what is asked, and the picture that it is asked about."""

    name: str
    text: str
    picture: Path | None = None


def find_inputs(folder: Path, *, sees: bool, model: str) -> tuple[Given, ...]:
    """The inputs in ``folder``, by name; for a model that ``sees``, pictures go before prompts.

    Every picture is opened once, so that a broken one is told before anything is timed. Raises
    LLMInvalidRequestError where there is nothing for this model.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise _wrong(f"input_dir {str(folder)!r} {what}; a directory of inputs is needed")
    files = sorted(path for path in folder.iterdir() if path.is_file())
    pictures = [path for path in files if path.suffix.lower() in PICTURES]
    if sees and pictures:
        told = folder / INSTRUCTION
        text = told.read_text(encoding="utf-8").strip() if told.is_file() else USUAL_INSTRUCTION
        for path in pictures:
            read_picture(path)
        return tuple(Given(name=path.name, text=text, picture=path) for path in pictures)
    given = tuple(_prompts(files))
    if given:
        return given
    if sees:
        raise _wrong(
            f"input_dir {str(folder)!r} holds no pictures ({', '.join(sorted(PICTURES))}) and no "
            ".txt or .jsonl prompts"
        )
    also = f", but {len(pictures)} pictures, which {model} cannot see" if pictures else ""
    raise _wrong(f"input_dir {str(folder)!r} holds no .txt or .jsonl prompts{also}")


def read_picture(path: Path) -> Any:
    """The picture in RGB; LLMInvalidRequestError where the file is not one."""
    from headrace.bench.profile.needs import pillow

    image = pillow()
    try:
        with image.open(path) as opened:
            return opened.convert("RGB")
    # Pillow's readers answer a broken file with whatever they stumbled on.
    except (OSError, ValueError, SyntaxError, EOFError, image.DecompressionBombError) as broken:
        raise _wrong(f"{str(path)!r} is no readable picture: {broken}") from broken


def _prompts(files: list[Path]) -> Iterator[Given]:
    for path in files:
        if path.suffix.lower() == ".txt":
            text = path.read_text(encoding="utf-8").strip()
            if not text:
                raise _wrong(f"{str(path)!r} is empty; a prompt is needed")
            yield Given(name=path.name, text=text)
        elif path.suffix.lower() == ".jsonl":
            yield from _lines(path)


def _lines(path: Path) -> Iterator[Given]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        where = f"{str(path)!r}, line {number}"
        try:
            said = json.loads(line)
        except ValueError as error:
            raise _wrong(f"{where} is no JSON: {error}") from error
        if isinstance(said, dict):
            said = said.get("prompt", said.get("text"))
        if not isinstance(said, str) or not said.strip():
            raise _wrong(f"{where} has no text; a JSON text, or an object with prompt or text")
        yield Given(name=f"{path.name}:{number}", text=said)


def _wrong(message: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(message, param="input_dir")
