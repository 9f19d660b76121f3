"""A gateway with the real model, as a child process on a free loopback port."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_ANNOUNCED = re.compile(r"http://127\.0\.0\.1:(\d+)/v1/chat/completions")
# The first start may have to fetch the model.
_START_S = 600.0
_STOP_S = 60.0


@contextlib.contextmanager
def serving(settings: Mapping[str, str], log: Path) -> Iterator[int]:
    """The port of a gateway that runs with ``settings`` (HEADRACE_ variables) until the end."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("HEADRACE_") or name == "HEADRACE_CACHE"
    }
    command = [sys.executable, "-m", "headrace", "serve", "--host", "127.0.0.1", "--port", "0"]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env={**environment, **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield _port(process, log)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    until = time.monotonic() + _START_S
    while time.monotonic() < until:
        said = log.read_text(encoding="utf-8", errors="replace")
        announced = _ANNOUNCED.search(said)
        if announced is not None:
            return int(announced[1])
        if process.poll() is not None:
            raise SystemExit(f"the gateway ended with status {process.returncode}:\n{said[-2000:]}")
        time.sleep(0.1)
    raise SystemExit(f"the gateway did not say within {_START_S:.0f} s that it serves; see {log}")
