"""``python -m compliance [openai] [anthropic] [groq] [llamacpp] [langchain]``: run the suites, print what came of them.

Exits with 0 only if every test that was not left out by name passed.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from compliance.environment import prepare
from compliance.gateway import serving
from compliance.report import is_good, tell
from compliance.sources import fetch
from compliance.suites import SUITES, Suite
from headrace.stores.models.store import default_cache

ROOT = Path(__file__).parent.parent
# Minutes are usual; an hour means that something hangs.
_LIMIT_S = 3600.0


def main() -> int:
    """Run the suites named on the command line, or all."""
    reader = argparse.ArgumentParser(prog="python -m compliance", description=__doc__)
    reader.add_argument("suites", nargs="*", choices=[*SUITES, []], help="default: all")
    reader.add_argument("-k", dest="only", help="run only what matches, as pytest's -k")
    asked = reader.parse_args()
    # As an exception, so that the gateway and the suite end with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    suites = [SUITES[name] for name in asked.suites or SUITES]
    good = True
    for suite in suites:
        results = run(suite, asked.only)
        partial = asked.only is not None
        sys.stdout.write(tell(suite.name, results, partial=partial))
        good = is_good(results, partial=partial) and good
    return 0 if good else 1


def run(suite: Suite, only: str | None = None) -> dict[str, Any]:
    """What the plugin wrote down about the suite's tests."""
    if suite.source is None:
        source, start = None, suite.own_files[0].parent
    else:
        source = fetch(suite.source, default_cache() / "compliance")
        start = source / suite.place
    requirements = [each.format(source=source) for each in suite.requirements]
    python = prepare(ROOT / ".venv-compliance" / suite.name, requirements, suite.pins)
    with tempfile.TemporaryDirectory(prefix="compliance-") as place:
        results, plan = Path(place) / "results.json", Path(place) / "plan.json"
        rules = [rule.as_json() for rule in suite.left_out]
        plan.write_text(json.dumps({"left_out": rules, "results": str(results)}), encoding="utf-8")
        command = [str(python), "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider"]
        # Their own default options ask for plugins and workers that we have no use for.
        command += ["-o", "addopts=", "-p", "compliance.plugin"]
        command += [part for plugin in suite.plugins for part in ("-p", plugin)]
        command += ["-k", only] if only is not None else []
        command += [*suite.files, *map(str, suite.own_files)]
        settings = {name: text.format(place=place) for name, text in suite.gateway.items()}
        with serving(settings, Path(place) / "gateway.log") as port:
            said = {name: text.format(port=port) for name, text in suite.environment.items()}
            environment = {**os.environ, **said, "PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1"}
            environment["COMPLIANCE_PLAN"] = str(plan)
            _run_pytest(command, start, environment)
        if not results.is_file():
            raise SystemExit(f"pytest ended without having run the {suite.name} suite")
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found


def _run_pytest(command: list[str], place: Path, environment: dict[str, str]) -> None:
    try:
        subprocess.run(command, cwd=place, env=environment, timeout=_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise SystemExit(f"the suite did not end within {_LIMIT_S:.0f} s; it was stopped") from None


if __name__ == "__main__":
    sys.exit(main())
