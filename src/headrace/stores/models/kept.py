"""The model files of the cache that came by URI: each once, by the hash of what is in it.

files/SHA256/NAME     a file, whole and checked
uris/HASH.json        where one came from; several may name the same file
parts/HASH            what has come so far of one that is on its way
parts/HASH.json       the note beside it (``download``)
"""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path

from attrs import asdict, evolve, frozen

from headrace.contracts.convert import from_plain
from headrace.contracts.errors import LLMError
from headrace.stores.models.uri import ModelUri


@frozen(kw_only=True)
class Kept:
    """A file in the cache, and where it came from; ``revision`` is the commit, where one was told."""

    uri: str
    sha256: str
    size_bytes: int
    path: str
    fetched_at: str
    revision: str | None = None


@frozen
class KeptFiles:
    """The files below ``cache``."""

    cache: Path

    def part(self, uri: ModelUri) -> Path:
        """Where the file of ``uri`` lies while it comes."""
        return self.cache / "parts" / _name_of(uri.text)

    def find(self, uri: ModelUri) -> Kept | None:
        """The file of ``uri``, if all of it is here and is the one that the URI asks for."""
        kept = self._read(self._note(uri.text))
        if kept is None or uri.sha256 not in (None, kept.sha256):
            return None
        return kept

    def keep(
        self, uri: ModelUri, part: Path, sha256: str, *, at: datetime, revision: str | None = None
    ) -> Kept:
        """Take ``part``, which is whole, in as the file of ``uri``."""
        place = self.cache / "files" / sha256 / uri.file_name
        place.parent.mkdir(parents=True, exist_ok=True)
        kept = Kept(
            uri=uri.text,
            sha256=sha256,
            size_bytes=part.stat().st_size,
            path=str(place),
            fetched_at=at.isoformat(timespec="seconds"),
            revision=revision,
        )
        part.replace(place)
        note = self._note(uri.text)
        note.parent.mkdir(parents=True, exist_ok=True)
        fresh = note.with_suffix(f".{os.getpid()}")
        fresh.write_text(json.dumps(asdict(kept), indent=1), encoding="utf-8")
        fresh.replace(note)
        note_of(part).unlink(missing_ok=True)
        return kept

    def all(self) -> list[Kept]:
        """Every file, by its URI."""
        notes = (self.cache / "uris").glob("*.json")
        found = [kept for note in notes if (kept := self._read(note)) is not None]
        return sorted(found, key=lambda kept: kept.uri)

    def remove(self, kept: Kept) -> bool:
        """Forget ``kept``; whether its file went too, which another URI may still have."""
        self._note(kept.uri).unlink(missing_ok=True)
        if any(other.path == kept.path for other in self.all()):
            return False
        path = Path(kept.path)
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
        return True

    def remove_part(self, uri: ModelUri) -> int:
        """Remove what has come so far of ``uri``; how many bytes that were."""
        part = self.part(uri)
        size = part.stat().st_size if part.is_file() else 0
        part.unlink(missing_ok=True)
        note_of(part).unlink(missing_ok=True)
        return size

    def _note(self, text: str) -> Path:
        return self.cache / "uris" / f"{_name_of(text)}.json"

    def _read(self, note: Path) -> Kept | None:
        """What the note says, as far as the file is there and has that size."""
        try:
            kept = from_plain(json.loads(note.read_text(encoding="utf-8")), Kept)
            # The cache may have been moved since.
            place = self.cache / "files" / kept.sha256 / Path(kept.path).name
            there = place.stat().st_size == kept.size_bytes
        except (OSError, ValueError, LLMError):
            # Half a note is no note: the file is fetched again.
            return None
        return evolve(kept, path=str(place)) if there else None


def note_of(part: Path) -> Path:
    """Where the note lies that says whose part ``part`` is."""
    return part.with_name(f"{part.name}.json")


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
