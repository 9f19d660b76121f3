"""``headrace compare``: which of two saved runs, or of two targets, is faster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from headrace.bench.load.compare import Side
    from headrace.contracts.load_report import LoadReport

TOO_LITTLE, SLOWER = 2, 3
"""Exit statuses: with --strict, too little data to say; B is slower in some way."""

_BLOCKS = 8


def compare(
    a: Annotated[str, typer.Argument(help="A saved run (report.json or its folder), or a URL.")],
    b: Annotated[str, typer.Argument(help="The same of the other, which is judged against A.")],
    blocks: Annotated[
        int,
        typer.Option(min=1, max=100, help="Two URLs: turns that each has, in the order ABBA."),
    ] = _BLOCKS,
    requests: Annotated[
        int | None,
        typer.Option(min=1, help="Two URLs: requests of each in all. [default: 800]"),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Two URLs: callers in turn. [default: 10]")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Two URLs: requests a second.")] = None,
    scenario: Annotated[
        str | None, typer.Option(help="Two URLs: short, medium, long or mixed.")
    ] = None,
    input_tokens: Annotated[
        str | None, typer.Option(help="Two URLs: made-up prompts of that length.")
    ] = None,
    output_tokens: Annotated[
        str | None, typer.Option(help="Two URLs: how long answers may be.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Two URLs: the model. [default: each one's first]")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Two URLs: chat, completions, ...")] = None,
    config: Annotated[
        Path | None, typer.Option(help="Two URLs: YAML file with the plan to drive both by.")
    ] = None,
    slo: Annotated[
        list[str] | None, typer.Option(help="Two URLs: a promise, for goodput. Repeatable.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="What chance begins with.")] = None,
    least: Annotated[
        float, typer.Option(min=0, help="A smaller difference than that does not count.")
    ] = 0.01,
    fail_if_slower: Annotated[
        bool, typer.Option(help="Exit with 3 where B is slower in some way.")
    ] = True,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 2 where there is too little data to say.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print it as Markdown, for a pull request.")
    ] = False,
) -> None:
    """Compare two runs: ratios with 95% intervals, and a verdict about B.

    A and B are saved runs, or two URLs that are then driven in turn. Exit status: 0 no worse, 1 an
    error, 2 too little data (with --strict), 3 slower.
    """
    given = dict(locals())
    from headrace.bench.load.compare import compare as judge
    from headrace.bench.report.comparison import comparison_markdown, show_comparison
    from headrace.cli.output import console, print_json

    found = judge(*_sides(given), least=least, seed=seed or 0)
    if as_json:
        print_json(found)
    elif markdown:
        typer.echo(comparison_markdown(found), nl=False)
    else:
        show_comparison(found, console())
    if fail_if_slower and found.judgement in ("slower", "mixed"):
        raise typer.Exit(SLOWER)
    if strict and found.judgement == "too little data":
        raise typer.Exit(TOO_LITTLE)


def _sides(given: dict[str, Any]) -> tuple[Side, Side]:
    from headrace.bench.load.compare import Side
    from headrace.contracts.errors import LLMInvalidRequestError

    a, b = given["a"], given["b"]
    urls = [name.startswith(("http://", "https://")) for name in (a, b)]
    if all(urls):
        return _driven(given)
    if any(urls):
        raise LLMInvalidRequestError(
            "one of the two is a URL and the other a saved run: give two saved runs, or two URLs"
        )
    return Side(name=a, reports=(_read(a),)), Side(name=b, reports=(_read(b),))


def _read(name: str) -> LoadReport:
    from headrace.bench.report.files import read

    return read(Path(name))


def _driven(given: dict[str, Any]) -> tuple[Side, Side]:
    """Both targets in turn, ABBA ABBA: what drifts with time falls on both alike."""
    from attrs import evolve

    from headrace.bench.load.compare import Side
    from headrace.bench.load.run import load
    from headrace.cli.load_plan import plans_of
    from headrace.contracts.errors import LLMInvalidRequestError

    if given["scenario"] == "all":
        raise LLMInvalidRequestError("--scenario all cannot be compared; name one of them")
    blocks: int = given["blocks"]
    total = given["requests"] or 800
    flags = {k: v for k, v in given.items() if k not in ("a", "b", "blocks", "as_json", "least")}
    plans = {}
    for side in "ab":
        ((_, plans[side]),) = plans_of({**flags, "url": given[side], "requests": total})
    reports: dict[str, list[LoadReport]] = {"a": [], "b": []}
    order = ("abba" * blocks)[: 2 * blocks]
    for turn, side in enumerate(order):
        at = len(reports[side])
        plan = evolve(plans[side], requests=max(1, total // blocks), seed=plans[side].seed + at)
        typer.echo(f"turn {turn + 1} of {len(order)}: {side.upper()} {given[side]}", err=True)
        report = load(plan)
        reports[side].append(report)
        if report.ended == "interrupted":
            break
    if not all(reports.values()):
        raise LLMInvalidRequestError("interrupted before both targets had a turn")
    return tuple(Side(name=given[s], reports=tuple(reports[s])) for s in "ab")  # type: ignore[return-value]
