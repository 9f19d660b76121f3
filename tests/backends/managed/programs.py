"""Machines on which every program that we start is installed: as a stand-in of that name."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Any

from attrs import evolve

from backends.managed.posing import PROGRAMS
from headrace.backends.managed.adapters import ADAPTERS
from headrace.backends.managed.adapters.program import Program
from headrace.contracts.engines import EngineConfig

ROWS: list[Program] = [each for each in ADAPTERS if isinstance(each, Program)]
# What each takes for a model, where its own kind of name is needed.
MODEL = {"ovms": "stand-in/one", "llama-server": "stand-in/one:Q8_0"}


def install(folder: Path, *names: str) -> Path:
    """The stand-ins ``names``, or all of them, in ``folder``, for PATH."""
    folder.mkdir(exist_ok=True)
    beside = str(Path(__file__).parent)
    for name in names or PROGRAMS:
        program = folder / name
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {beside!r})\n"
            "import posing\nposing.main()\n"
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def asked_of(folder: Path) -> list[str]:
    """The command lines with which the stand-ins in ``folder`` were run."""
    said = folder / "asked"
    return said.read_text().splitlines() if said.exists() else []


def engine(row: Program, folder: Path, **fields: Any) -> EngineConfig:
    """An engine of ``row``'s program, found in ``folder``."""
    backend = row.names[0]
    usual = {"name": "posing", "model": MODEL.get(backend, "stand-in-1"), "backend": backend}
    env = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **fields.pop("extra_env", {})}
    return EngineConfig(**{**usual, "startup_timeout_s": 30.0, "extra_env": env, **fields})


def with_gpus(row: Program, *, gpus: bool) -> Program:
    """``row`` on a machine with or without GPUs, whatever this one has."""
    return evolve(row, has_gpu=lambda: gpus)
