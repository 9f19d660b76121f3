"""What an engine's program said, and how it was started, without the keys in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from headrace.stores.secret import MASK, Secret, redact

_LINES, _BYTES = 15, 4096
_SECRET_WORDS = frozenset({"key", "token", "secret", "password"})


def names_secret(name: str) -> bool:
    """Whether what a flag or a variable of that name holds is not to be shown."""
    return re.split(r"[-_]", name.lower())[-1] in _SECRET_WORDS


def tail(path: Path, secrets: Iterable[Secret | str] = (), lines: int = _LINES) -> str:
    """The last ``lines`` of the file; nothing where there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _BYTES))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return redact("\n".join(text.rstrip().splitlines()[-lines:]), secrets)


def shorten(path: Path, most_bytes: int = 64 << 20, left_bytes: int = 1 << 20) -> None:
    """Leave the last ``left_bytes`` of a log that has become longer than ``most_bytes``.

    Whoever writes it goes on behind them. What comes in that very moment is lost.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            if size > most_bytes:
                file.seek(size - left_bytes)
                last = file.read()
                file.seek(0)
                file.truncate()
                file.write(last)
    except FileNotFoundError:
        return


def without_secrets(argv: Sequence[str], secrets: Iterable[Secret | str]) -> tuple[str, ...]:
    """A command line that may be shown."""
    shown, is_secret = [], False
    for part in argv:
        name, has_value, _ = part.partition("=")
        names_one = part.startswith("-") and names_secret(name)
        if is_secret and not part.startswith("-"):
            shown.append(MASK)
        elif names_one and has_value:
            shown.append(f"{name}={MASK}")
        else:
            shown.append(redact(part, secrets))
        is_secret = names_one and not has_value
    return tuple(shown)
