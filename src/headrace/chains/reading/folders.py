"""Rows from a folder: a text or an image each, by their paths in it and in the order of these."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from headrace.chains.reading.lines import MOST_ROW_BYTES
from headrace.chains.reading.rows import Wrong

TEXTS = (".txt", ".md")
IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


def files_in(folder: Path) -> Iterator[Path]:
    """The files below ``folder``, in the order of their names; what begins with . or _ is none."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        if entry.name.startswith((".", "_")):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from files_in(Path(entry.path))
        else:
            yield Path(entry.path)


def of_text(path: Path, name: str) -> Iterator[object]:
    """The one row that a file of text is."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_ROW_BYTES + 1)
    except OSError as error:
        yield Wrong(f"{path} cannot be read: {error.strerror}", found={"id": name})
        return
    if len(data) > MOST_ROW_BYTES:
        yield Wrong(f"{path} is longer than {MOST_ROW_BYTES} bytes", found={"id": name})
        return
    try:
        yield {"id": name, "text": data.decode("utf-8-sig")}
    except UnicodeDecodeError as error:
        yield Wrong(f"{path} is not UTF-8: {error}", found={"id": name})


def of_image(path: Path, name: str) -> Iterator[object]:
    """The one row that an image is: it is read where a step asks about it."""
    yield {"id": name, "image": str(path)}
