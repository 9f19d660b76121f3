"""Fetch a released source package and unpack it; pip does the download, from the user's index."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from attrs import frozen


@frozen(kw_only=True)
class SourcePackage:
    """A release on the package index, known by the hash of its source archive."""

    name: str
    version: str
    sha256: str

    @property
    def folder_name(self) -> str:
        """What the archive unpacks to."""
        return f"{self.name}-{self.version}"


def fetch(package: SourcePackage, cache: Path) -> Path:
    """The folder of the unpacked package beneath ``cache``; fetched the first time only."""
    folder = cache / package.folder_name
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="fetch-") as place:
        archive = _download(package, Path(place))
        with tarfile.open(archive) as tar:
            tar.extractall(place, filter="data")
        unpacked = Path(place) / package.folder_name
        if not unpacked.is_dir():
            raise SystemExit(f"{archive.name} does not unpack to {package.folder_name}")
        shutil.move(unpacked, folder)
    return folder


def _download(package: SourcePackage, place: Path) -> Path:
    wanted = f"{package.name}=={package.version}"
    requirements = place / "requirements.txt"
    requirements.write_text(f"{wanted} --hash=sha256:{package.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    # Only this package as source: what pip needs to read its metadata comes as wheels, and nothing
    # is built.
    command += ["--disable-pip-version-check", "--no-binary", package.name]
    command += ["--require-hashes", "-r", str(requirements), "-d", str(place)]
    if subprocess.run(command, check=False).returncode != 0:
        raise SystemExit(f"pip could not download the source of {wanted}")
    archives = list(place.glob("*.tar.gz"))
    if len(archives) != 1:
        raise SystemExit(f"pip downloaded {len(archives)} archives for {wanted}, expected one")
    return archives[0]
