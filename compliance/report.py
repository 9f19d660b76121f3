"""What came of a suite, as a table by file and a list of what was left out, with the reasons."""

from __future__ import annotations

from collections import Counter
from typing import Any

_COLUMNS = ("passed", "failed", "skipped", "left out")


def tell(suite: str, results: dict[str, Any], *, partial: bool) -> str:
    """The summary of ``results``; a ``partial`` run need not have had a use for every rule."""
    counts: dict[str, Counter[str]] = {}
    for node, outcome in results["outcomes"].items():
        counts.setdefault(_file(node, results), Counter())[outcome] += 1
    for node in results["left_out"]:
        counts.setdefault(_file(node, results), Counter())["left out"] += 1
    width = max(map(len, [*counts, suite]), default=0) + 2
    lines = ["", f"{suite:<{width}}" + "".join(f"{name:>10}" for name in _COLUMNS)]
    for file, found in sorted(counts.items()):
        lines.append(f"{file:<{width}}" + "".join(f"{found[name]:>10}" for name in _COLUMNS))
    total = sum(counts.values(), Counter())
    lines.append(f"{'together':<{width}}" + "".join(f"{total[name]:>10}" for name in _COLUMNS))
    lines += _reasons("left out", results["left_out"], results)
    lines += _reasons("skipped by themselves", results["skips"], results)
    failed = sorted(node for node, how in results["outcomes"].items() if how == "failed")
    lines += ["", "failed:", *(f"  {node}" for node in failed)] if failed else []
    idle = [] if partial else results["idle_rules"]
    lines += ["", "named to be left out, but not there:"] if idle else []
    lines += [f"  {rule['file']}: {', '.join(rule['tests'])}" for rule in idle]
    return "\n".join(lines) + "\n"


def is_good(results: dict[str, Any], *, partial: bool) -> bool:
    """Whether all that ran passed, and something did; ``partial`` as for ``tell``."""
    outcomes = results["outcomes"].values()
    if results["idle_rules"] and not partial:
        return False
    return "failed" not in outcomes and "passed" in outcomes


def _reasons(title: str, reasons: dict[str, str], results: dict[str, Any]) -> list[str]:
    grouped: dict[tuple[str, str], Counter[str]] = {}
    for node, reason in reasons.items():
        test = node.rpartition("::")[2].partition("[")[0]
        grouped.setdefault((_file(node, results), reason), Counter())[test] += 1
    lines = ["", f"{title}:"] if grouped else []
    for (file, reason), tests in grouped.items():
        lines.append(f"  {file}: {reason}")
        lines += [f"    {test} ({count})" for test, count in tests.items()]
    return lines


def _file(node: str, results: dict[str, Any]) -> str:
    # What failed to be collected has no test, and so its path for a name.
    return str(results["files"].get(node, node))
