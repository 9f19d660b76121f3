"""Whether a model's weights fit, asked before any of them is made.

A system that has promised more memory than it has ends a program without a word; so what is sure
not to fit is told beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.bench.profile import needs
from headrace.bench.profile.stopping import NoMemoryError
from headrace.bench.profile.work import account_of
from headrace.numbers.architecture import size

_MEMORY = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup/memory.max")


def check_fits(config: Mapping[str, Any], *, name: str, dtype: str, device: str, hint: str) -> None:
    """NoMemoryError where the weights alone are more than is free; nothing where that is not known."""
    shape = account_of(config, name=name, dtype=dtype, last_logits_only=False).model
    wanted = None if shape is None else size(shape).stored_bytes
    free = free_bytes(device)
    if wanted is None or free is None or wanted <= free:
        return
    raise NoMemoryError(
        f"out of memory while loading {name}: its weights are {wanted / 1e9:.1f} GB in {dtype}, and "
        f"{free / 1e9:.1f} GB are free on {device}; {hint}"
    )


def free_bytes(device: str) -> int | None:
    """Bytes that can be had on ``device``; None where the system does not tell."""
    if device != "cpu":
        return int(needs.torch().cuda.mem_get_info(device)[0])
    if not _MEMORY.is_file():
        return None
    lines = dict(line.split(":", 1) for line in _MEMORY.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024
    most = _GROUP.read_text().strip() if _GROUP.is_file() else "max"
    return free if most == "max" else min(free, int(most))
