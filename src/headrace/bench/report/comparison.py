"""A comparison of two runs, for the terminal and for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.contracts.load_find import Comparison, Difference

if TYPE_CHECKING:
    from rich.console import Console

_SAID = {
    "faster": "B is faster",
    "slower": "B is slower",
    "no difference seen": "no difference seen",
    "too little data": "too little data to say",
    "mixed": "B is faster in some ways and slower in others",
}


def sentence(found: Comparison) -> str:
    """The verdict in words, with the first differences that it is made of."""
    if found.judgement in ("no difference seen", "too little data"):
        return _SAID[found.judgement]
    wanted = ("faster", "slower") if found.judgement == "mixed" else (found.judgement,)
    clear = [d for d in found.differences if d.judgement in wanted and d.ratio]
    told = ", ".join(f"{d.name} {_percent(d)}" for d in clear[:3])
    return _SAID[found.judgement] + (f" ({told})" if told else "")


def show_comparison(found: Comparison, console: Console) -> None:
    """Print the verdict, the table and what to beware of."""
    from rich.table import Table

    console.print(sentence(found))
    console.print(f"  A: {found.a}{_how_many(found.requests_a)}")
    console.print(f"  B: {found.b}{_how_many(found.requests_b)}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in ("A", "B", "B / A", "95% interval"):
        table.add_column(name, justify="right")
    table.add_column("B is")
    for d in found.differences:
        table.add_row(*_cells(d))
    for warning in found.warnings:
        console.print(f"beware: {warning}")
    console.print(table)


def comparison_markdown(found: Comparison) -> str:
    """The same as a table in Markdown."""
    lines = [
        f"**{sentence(found)}**",
        "",
        f"A: {_safe(found.a)}{_how_many(found.requests_a)}; "
        f"B: {_safe(found.b)}{_how_many(found.requests_b)}",
        "",
        *(f"- beware: {_safe(w)}" for w in found.warnings),
        *([""] if found.warnings else []),
        "| | A | B | B / A | 95% interval | B is |",
        "|---|--:|--:|--:|--:|---|",
        *("| " + " | ".join(map(_safe, _cells(d))) + " |" for d in found.differences),
    ]
    return "\n".join(lines) + "\n"


def _how_many(requests: int) -> str:
    """What a side is made of, where that is requests."""
    return f", {requests} requests" if requests else ""


def _cells(d: Difference) -> tuple[str, ...]:
    name = f"{d.name} ({d.unit})"
    if d.a is None or d.b is None:
        return (name, "-", "-", "-", "-", d.text)
    if d.ratio is None or d.low is None or d.high is None:
        ratio = "-" if d.ratio is None else f"{d.ratio:.3f}"
        return (name, _number(d.a), _number(d.b), ratio, "-", d.text)
    said = f"{d.judgement}, {d.text}" if d.text else d.judgement
    interval = f"{d.low:.3f} to {d.high:.3f}"
    return (name, _number(d.a), _number(d.b), f"{d.ratio:.3f}", interval, said)


def _percent(d: Difference) -> str:
    change = ((d.ratio or 1) - 1) * 100
    return f"{change:+.1f}%"


def _number(value: float) -> str:
    return f"{value:.4g}" if value < 1000 else f"{value:,.0f}"


def _safe(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
