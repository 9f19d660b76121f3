"""``python -m compliance.openapi``: requests made of our own OpenAPI document, and what comes of them.

The judge is Schemathesis. It reads ``/openapi.json`` of a gateway before a provider of few words,
makes requests for every operation, as the document says and as it does not, and looks at each
answer. Exits with 0 only if it finds nothing wrong.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from compliance.environment import prepare
from compliance.gateway import serving
from compliance.upstream import answering

ROOT = Path(__file__).parent.parent
_HERE = Path(__file__).parent
_PINS = _HERE / "pins-openapi.txt"
_LIMIT_S = 3600.0


def main() -> int:
    """Serve, let it ask; its exit status is ours."""
    reader = argparse.ArgumentParser(prog="python -m compliance.openapi", description=__doc__)
    reader.add_argument("--examples", type=int, default=100, help="requests an operation, or so")
    reader.add_argument("--seed", type=int, default=1, help="other requests with another one")
    reader.add_argument("more", nargs="*", help="after --: options of schemathesis run")
    asked = reader.parse_args()
    (version,) = (
        line for line in _PINS.read_text().splitlines() if line.startswith("schemathesis==")
    )
    python = prepare(ROOT / ".venv-compliance" / "openapi", [version], _PINS)
    with tempfile.TemporaryDirectory(prefix="compliance-") as name, answering() as upstream:
        config = Path(name) / "gateway.yaml"
        config.write_text(yaml.safe_dump(_settings(upstream)))
        log = Path(name) / "gateway.log"
        with serving({"HEADRACE_CONFIG": str(config)}, log) as port:
            command = [
                str(python.parent / "schemathesis"),
                "--config-file",
                str(_HERE / "schemathesis.toml"),
            ]
            command += ["run", f"http://127.0.0.1:{port}/openapi.json"]
            command += ["--max-examples", str(asked.examples), "--seed", str(asked.seed)]
            environment = {**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": ""}
            done = subprocess.run(
                [*command, *asked.more],
                cwd=name,
                env=environment,
                timeout=_LIMIT_S,
                check=False,
            )
        for line in log.read_text().splitlines():
            if "Traceback" in line or '"level":"error"' in line:
                print(line[:2000])
    return done.returncode


def _settings(upstream: str) -> dict[str, object]:
    """A gateway for which every name is a model's."""
    return {
        "engine": {"enabled": False},
        "embeddings": {"enabled": False},
        "logging": {"requests": False, "format": "json"},
        "backends": [{"name": "m", "base_url": upstream, "models": ["*"]}],
    }


if __name__ == "__main__":
    sys.exit(main())
