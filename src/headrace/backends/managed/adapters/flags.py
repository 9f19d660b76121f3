"""A program's flags: which ones it knows, and ours and the user's put together."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from attrs import field, frozen

from headrace.stores.models.store import default_cache

log = logging.getLogger(__name__)

_HELP_S = 180.0
_FLAG = r"-{1,2}[A-Za-z][\w.-]*"
# A line that begins with a flag; what it means stands further to the right, or on the next line.
_LINE = re.compile(rf"^[ \t]{{0,8}}({_FLAG}.*)$", re.MULTILINE)
_FIRST = re.compile(_FLAG)
_VALUE = r"(?:\{[^}]*\}|\[[^\]]*\]|<[^>]*>|\([^)]*\)|[^\s,/-][^\s,]*)"
_NEXT = re.compile(rf"(?:[ =]{_VALUE})*\s*[,/]\s*({_FLAG})")


def plain(flag: str) -> str:
    """The flag that a word gives, the same however it is written: ``--a_b=1`` is ``a-b``."""
    return flag.partition("=")[0].lstrip("-").replace("_", "-")


def given(words: Sequence[str]) -> list[str]:
    """The words among ``words`` that are flags and no values."""
    return [word for word in words if re.match(_FLAG, word)]


@frozen
class Known:
    """The flags of a program, each under the first of its names."""

    first_of: Mapping[str, str] = field(repr=False)

    def __contains__(self, flag: str) -> bool:
        return plain(flag) in self.first_of

    def same(self, flag: str) -> str:
        """One name for all the names of a flag (``-tp``, ``--tensor-parallel-size``)."""
        return self.first_of.get(plain(flag), plain(flag))


NOTHING_KNOWN = Known({})


def read_help(text: str) -> Known:
    """The flags that a help text lists, whether argparse, click, clap or its writer made it."""
    first_of: dict[str, str] = {}
    for line in _LINE.findall(text):
        found = _FIRST.match(line)
        assert found is not None
        names, at = [found.group()], found.end()
        while (more := _NEXT.match(line, at)) is not None:
            names.append(more.group(1))
            at = more.end()
        first = first_of.get(plain(names[0]), plain(names[0]))
        for name in names:
            first_of.setdefault(plain(name), first)
    return Known(first_of)


def known_flags(asked: Sequence[str], env: Mapping[str, str]) -> Known | None:
    """What the program knows by what ``asked`` prints; None where it prints no flags.

    It takes some of them ten seconds to tell, so it is kept for as long as the program's file and
    ``env`` are the same.
    """
    program = Path(asked[0]).resolve()
    try:
        stat = program.stat()
    except OSError:
        return None
    told = [list(asked), str(program), stat.st_mtime_ns, stat.st_size, sorted(env.items())]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
    kept = default_cache() / "flags" / f"{key}.json"
    if asked[0] == sys.executable:
        # Its file says nothing of the module that it runs.
        return _asked(asked, env)
    try:
        return Known(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        pass  # not kept yet, or not whole
    known = _asked(asked, env)
    if known is not None:
        _keep(kept, known)
    return known


def _asked(asked: Sequence[str], env: Mapping[str, str]) -> Known | None:
    try:
        answer = subprocess.run(
            asked,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_HELP_S,
            env={**os.environ, **env},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        log.warning("%s did not tell its flags: %s", " ".join(asked), failure)
        return None
    known = read_help(answer.stdout + "\n" + answer.stderr)
    if answer.returncode != 0 or not known.first_of:
        log.warning("%s did not tell its flags: exit status %d", " ".join(asked), answer.returncode)
        return None
    return known


def _keep(path: Path, known: Known) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
        ) as file:
            json.dump(dict(known.first_of), file)
        Path(file.name).replace(path)
    except OSError as failure:  # the next start asks again
        log.warning("%s cannot be written: %s", path, failure)


@frozen
class Flag:
    """A flag of ours, with the words that follow it, and the field that it comes from, if any."""

    name: str
    values: tuple[str, ...] = ()
    of: str | None = None


def put_together(
    ours: Iterable[Flag], theirs: Sequence[str], known: Known
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words of ``ours`` and, as they are, of ``theirs``; and what is to be told of that.

    Where both have a flag, it stands there once, as the user's.
    """
    words: list[str] = []
    notes: list[str] = []
    seen: dict[str, str] = {}
    for word in given(theirs):
        same = known.same(word)
        if same in seen:
            notes.append(
                f"{word.partition('=')[0]} is given twice in extra_serve_flags; both are passed on"
            )
        seen.setdefault(same, word)
    for flag in ours:
        other = seen.get(known.same(flag.name))
        if other is None:
            words += [flag.name, *flag.values]
        elif flag.of is not None:
            notes.append(
                f"{flag.name} is given twice, by {flag.of} and in extra_serve_flags ({other}); the "
                "latter counts"
            )
    return (*words, *theirs), tuple(notes)
