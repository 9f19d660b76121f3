"""A run that is ended at some point, and what the next one then makes of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .counting import Counting

CHAIN = """
engines:
  - {{name: small, backend: openai-compatible, model: m, endpoint: {url}}}
models:
  Kind:
    type: object
    properties: {{kind: {{enum: [even, odd]}}, note: {{type: string}}}}
    required: [kind, note]
steps:
  - {{id: first, engine: small, user: "one {{{{ text }}}}", output: Kind, sampling: {{temperature: 0}}}}
  - id: way
    branch: "ways:by_kind"
    paths:
      even: {{id: short, apply: "ways:short"}}
      odd: {{id: long, apply: "ways:long"}}
  - {{join: both, partial: true}}
  - id: second
    engine: small
    user: "two {{{{ row.id }}}} {{{{ both | tojson }}}}"
    output: Kind
    sampling: {{temperature: 0}}
"""
WAYS = """
def by_kind(value):
    return value["kind"]


def short(value):
    return value["note"][:4]


def long(value):
    return value["note"] * 2
"""
ASKED_A_ROW = 2


class Ended:
    """A folder with a chain and its rows, and runs in it."""

    def __init__(self, folder: Path, server: Counting, rows: int) -> None:
        self.folder, self.server, self.rows = folder, server, rows
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ways.py").write_text(WAYS)
        self.write_chain(CHAIN)
        self.write_rows(range(rows))

    def write_chain(self, text: str) -> None:
        (self.folder / "chain.yaml").write_text(text.format(url=self.server.url))

    def write_rows(self, ids: object) -> None:
        lines = [json.dumps({"id": i, "text": f"row {i}"}) for i in ids]  # type: ignore[attr-defined]
        (self.folder / "in.jsonl").write_text("\n".join(lines) + "\n")

    def started(self, *more: str) -> subprocess.Popen[str]:
        words = ["run", "chain.yaml", "in.jsonl", "-o", "out.jsonl", "--no-progress", *more]
        return subprocess.Popen(
            [sys.executable, "-m", "headrace", *words],
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ran(self, *more: str, status: int = 0) -> str:
        """Standard error of a run that ends with ``status``."""
        process = self.started(*more)
        _, said = process.communicate(timeout=300)
        assert process.returncode == status, said
        assert "Traceback" not in said
        return said

    def killed_after(self, requests: int, *more: str) -> None:
        process = self.started(*more)
        self.server.wait_for(self.server.total + requests)
        process.kill()
        process.communicate()

    @property
    def output(self) -> bytes:
        return (self.folder / "out.jsonl").read_bytes()

    @property
    def asked_twice(self) -> int:
        """Requests that one run without an end would not have made."""
        return self.server.total - ASKED_A_ROW * self.rows
