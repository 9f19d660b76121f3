"""A bar on the terminal for what takes long: fetching a model, rewriting its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Task
    from rich.text import Text

    from headrace.stores.models import Progress

# Less is a count of something else: a model's tensors, of which there are some hundreds.
_FEWEST_BYTES = 100_000


@contextmanager
def shown() -> Iterator[Progress]:
    """What a model store tells of its progress, one bar for each thing it does, on standard error.

    Of bytes it says how fast they come.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    class Bytes(DownloadColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if _counts_bytes(task) else _nothing()

    class Speed(TransferSpeedColumn):
        def render(self, task: Task) -> Text:
            return super().render(task) if _counts_bytes(task) else _nothing()

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        Bytes(),
        Speed(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        tasks: dict[str, TaskID] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                # What lay here before we began says nothing about how fast the rest comes.
                tasks[what] = bar.add_task(what, total=total or None, completed=done)
            bar.update(tasks[what], completed=min(done, total or done), total=total or None)

        yield show


def _counts_bytes(task: Task) -> bool:
    return max(task.completed, task.total or 0) >= _FEWEST_BYTES


def _nothing() -> Text:
    from rich.text import Text

    return Text("")
