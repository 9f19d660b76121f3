"""A virtual environment for each suite: their requirements contradict one another's and ours."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def prepare(folder: Path, requirements: Sequence[str], pins: Path) -> Path:
    """The python of the environment in ``folder``, with ``requirements`` at the versions of ``pins``."""
    python = folder / "bin" / "python"
    wanted = "\n".join([*requirements, pins.read_text(encoding="utf-8")])
    stamp = folder / ".ready"
    digest = hashlib.sha256(wanted.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest:
        return python
    sys.stdout.write(f"Installing the suite's requirements into {folder.name} (once) ...\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(pins), *requirements], check=True)
    stamp.write_text(digest, encoding="utf-8")
    return python
