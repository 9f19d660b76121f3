"""What INPUT names: a file, a folder, a pattern of names, or standard input."""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from glob import has_magic, iglob
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from attrs import frozen

from headrace.chains.reading.arrow import of_arrow, of_parquet, opened_zstd
from headrace.chains.reading.datasets import of_dataset, shards_of
from headrace.chains.reading.folders import IMAGES, TEXTS, files_in, of_image, of_text
from headrace.chains.reading.lines import of_commas, of_json_lines, of_tabs
from headrace.chains.reading.rows import Row, identified
from headrace.contracts.errors import LLMInvalidRequestError

_Lines: TypeAlias = Callable[[BinaryIO, str], Iterator[object]]
_Rows: TypeAlias = Callable[[Path, str], Iterator[object]]

_LINES: dict[str, _Lines] = {
    ".jsonl": of_json_lines,
    ".ndjson": of_json_lines,
    ".csv": of_commas,
    ".tsv": of_tabs,
}
_PACKED = (".gz", ".zst")
_OTHERS: dict[str, _Rows] = {
    ".parquet": of_parquet,
    ".arrow": of_arrow,
    **dict.fromkeys(TEXTS, of_text),
    **dict.fromkeys(IMAGES, of_image),
}
_KNOWN = f"{', '.join([*_LINES, *_OTHERS])} (lines of text also with {' or '.join(_PACKED)})"


@frozen
class _File:
    """A file, and what it is called where its rows have no other name."""

    path: Path
    name: str

    @property
    def kind(self) -> str:
        suffixes = [each.lower() for each in self.path.suffixes[-2:]]
        if len(suffixes) == 2 and suffixes[1] in _PACKED:
            return "".join(suffixes)
        return suffixes[-1] if suffixes else ""


def read_rows(source: Path | str, *, id_column: str = "id") -> Iterator[Row]:
    """The rows of a file, of all files in a folder or of a pattern, or of standard input (``-``:
    JSONL).

    Raises LLMInvalidRequestError where nothing is there, or what is there is of another kind.
    """
    if str(source) == "-":
        return identified(of_json_lines(sys.stdin.buffer, "standard input"), id_column)
    path = Path(source)
    if path.is_dir() and (shards := shards_of(path)) is not None:
        return identified(of_dataset(shards), id_column)
    if path.is_dir():
        files = _of_folder(path)
    elif has_magic(str(source)) and not path.exists():
        files = _of_pattern(str(source))
    else:
        files = _of_one(path)
    return identified(_through(files), id_column)


def is_within(output: Path, source: str) -> bool:
    """Whether a file at ``output`` would be read with ``source`` the next time."""
    if source == "-":
        return False
    path = Path(source)
    target = output.absolute()
    if path.is_dir():
        return target.is_relative_to(path.absolute())
    if has_magic(source) and not path.exists():
        own, wanted = target.parts, Path(source).absolute().parts
        if "**" in wanted:
            return fnmatchcase(str(target), str(Path(source).absolute()).replace("**/", "*"))
        return len(own) == len(wanted) and all(map(fnmatchcase, own, wanted))
    return target == path.absolute()


def _of_one(path: Path) -> Callable[[], Iterator[_File]]:
    if not path.is_file():
        raise LLMInvalidRequestError(
            f"input is {str(path)!r}, which is no file and no folder", param="input"
        )
    file = _File(path, path.name)
    _check(file)
    return lambda: iter((file,))


def _of_folder(folder: Path) -> Callable[[], Iterator[_File]]:
    def files() -> Iterator[_File]:
        for path in files_in(folder):
            yield _File(path, path.relative_to(folder).as_posix())

    return _alike(files, str(folder))


def _of_pattern(pattern: str) -> Callable[[], Iterator[_File]]:
    fixed = Path(*_up_to(has_magic, Path(pattern).parts))
    paths = sorted(path for path in map(Path, iglob(pattern, recursive=True)) if path.is_file())  # noqa: PTH207 - takes absolute patterns
    return _alike(lambda: (_File(p, p.relative_to(fixed).as_posix()) for p in paths), pattern)


def _up_to(ends: Callable[[str], bool], parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if ends(part):
            return
        yield part


def _alike(files: Callable[[], Iterator[_File]], source: str) -> Callable[[], Iterator[_File]]:
    """``files``, once it is known that they are all of one sort."""
    first: tuple[_File, str] | None = None
    for file in files():
        _check(file)
        sort = _sort(file.kind)
        if first is None:
            first = file, sort
        elif sort != first[1]:
            raise LLMInvalidRequestError(
                f"input is {source!r}, which holds {first[0].name} and {file.name}: rows of several "
                f"kinds; name those that you mean, as in 'folder/**/*{first[0].kind}'",
                param="input",
            )
    if first is None:
        raise LLMInvalidRequestError(
            f"input is {source!r}, where no file is; known: {_KNOWN}", param="input"
        )
    return files


def _sort(kind: str) -> str:
    if kind in TEXTS:
        return "texts"
    return "images" if kind in IMAGES else "tables"


def _check(file: _File) -> None:
    if file.kind not in _OTHERS and _bare(file.kind) not in _LINES:
        raise LLMInvalidRequestError(
            f"input is {str(file.path)!r}, must be one of {_KNOWN}, a folder of such, or - for "
            "JSONL on standard input",
            param="input",
        )


def _bare(kind: str) -> str:
    for packed in _PACKED:
        kind = kind.removesuffix(packed)
    return kind


def _through(files: Callable[[], Iterator[_File]]) -> Iterator[object]:
    for file in files():
        other = _OTHERS.get(file.kind)
        if other is not None:
            yield from other(file.path, file.name)
            continue
        try:
            with _opened(file) as lines:
                yield from _LINES[_bare(file.kind)](lines, str(file.path))
        except (OSError, EOFError, zlib.error) as error:
            raise LLMInvalidRequestError(
                f"input is {str(file.path)!r}, which cannot be read on: {error}; the rows before "
                "that are kept",
                param="input",
            ) from error


def _opened(file: _File) -> BinaryIO:
    if file.kind.endswith(".gz"):
        return cast(BinaryIO, BufferedReader(gzip.open(file.path)))
    if file.kind.endswith(".zst"):
        return opened_zstd(file.path)
    return file.path.open("rb")
