"""How a run goes, on a terminal: a bar for each node, and a line for each engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.cli.run_tell import batch_of, cost_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from headrace.chains.look import EngineLook, Look, NodeLook
    from headrace.chains.reading import Row
    from headrace.chains.walk import Failed

_BAR_COLUMNS = 30


class View:
    """Drawn anew at each look, on standard error; gone at the end."""

    every_s = 0.5

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live: Live = Live(
            console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )

    def begin(self, look: Look) -> None:
        self._live.start()
        self.shows(look)

    def shows(self, look: Look) -> None:
        self._live.update(drawn(look), refresh=True)

    def failed(self, row: Row, failed: Failed) -> None: ...

    def end(self) -> None:
        self._live.stop()


def drawn(look: Look) -> RenderableType:
    """``look`` as it is shown."""
    from rich.console import Group
    from rich.text import Text

    batches = (Text(batch_of(each)) for each in look.batches)
    return Group(_nodes(look.nodes), Text(_whole(look)), _engines(look.engines), *batches)


def _nodes(nodes: tuple[NodeLook, ...]) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for justify in ("left", "left", "right", "left"):
        table.add_column(justify=justify)
    for node in nodes:
        bar: RenderableType = Text("")
        count = f"{node.done}"
        if node.expected is not None:
            bar = ProgressBar(total=max(node.expected, 1), completed=node.done, width=_BAR_COLUMNS)
            count = f"{node.done}/{node.expected}"
        more = [
            f"{number} {what}"
            for number, what in ((node.reused, "done before"), (node.failed, "failed"))
            if number
        ]
        table.add_row(Text(node.id), bar, Text(count), Text(", ".join(more)))
    return table


def _whole(look: Look) -> str:
    of = "" if look.rows_known is None else f"/{look.rows_known}"
    said = [
        f"{look.rows}{of} rows",
        f"{look.rows_a_second:.0f} rows/s",
        f"{look.tokens_a_second:.0f} tok/s",
    ]
    left = _left(look)
    if left is not None:
        said.append(f"{left} left")
    if look.failed:
        said.append(f"{look.failed} failed")
    if look.retries:
        said.append(f"{look.retries} retries")
    return " · ".join(said + cost_of(look))


def _left(look: Look) -> str | None:
    if look.rows_known is None or look.rows_a_second <= 0:
        return None
    seconds = round(max(0, look.rows_known - look.rows) / look.rows_a_second)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _engines(engines: tuple[EngineLook, ...]) -> RenderableType:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1))
    for each in engines:
        at_once = f"{each.running}" + ("" if each.places is None else f" of {each.places}")
        waiting = f", {each.waiting} waiting" if each.waiting else ""
        table.add_row(
            Text(each.name, style="dim"),
            Text(f"{at_once} asked now{waiting}", style="dim"),
            Text(each.state or "", style="dim"),
        )
    return table
