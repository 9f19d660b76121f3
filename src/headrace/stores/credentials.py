"""Where keys come from: in what order they are looked for, and what is said where there is none.

1. what the caller gave (an argument, or ``api_key`` in a request's metadata),
2. the environment,
3. ``.env`` in the working directory, which never goes before the environment,
4. ``$XDG_CONFIG_HOME/headrace/credentials`` (``~/.config`` if that is not set),
5. ``~/.ipfs_api_credentials``.

The files have python-dotenv's syntax: ``NAME=value`` lines, ``export`` and ``#`` allowed. The last
two must be readable by their owner only. There are no default keys.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from attrs import define, field, frozen

from headrace.contracts.errors import LLMAuthError
from headrace.stores.secret import Secret

SourceState: TypeAlias = Literal["found", "nothing", "absent", "refused"]

# Services that have no row in ``backends.providers`` yet; a row names its own.
OTHER_KEYS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY"),
    "huggingface": ("HF_TOKEN", "HF_API_TOKEN"),
    "cohere": ("COHERE_API_KEY", "CO_API_KEY"),
}


@frozen(kw_only=True)
class FoundKey:
    """A key, the name that it was found under (``None`` if given) and where that was."""

    secret: Secret
    name: str | None
    source: str


@frozen(kw_only=True)
class SourceReport:
    """What one place holds of the names asked for; ``remedy`` is a command that would help."""

    source: str
    state: SourceState
    name: str | None = None
    remedy: str | None = None


@frozen
class _Refused:
    why: str
    remedy: str | None = None


@define(kw_only=True, eq=False)
class Credentials:
    """The places where keys are looked for; each file is read once, when it is first reached.

    ``environment`` is the process's own if left out, taken when this is made. A place that is
    ``None`` is not looked at.
    """

    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ), repr=False)
    dotenv: Path | None = field(factory=lambda: Path(".env").absolute())
    config: Path | None = field()
    seed: Path | None = field(factory=lambda: _home() / ".ipfs_api_credentials")
    _read: dict[Path, dict[str, str] | _Refused | None] = field(
        factory=dict, init=False, repr=False
    )

    @config.default
    def _usual_config(self) -> Path:
        base = self.environment.get("XDG_CONFIG_HOME")
        folder = Path(base) if base and Path(base).is_absolute() else _home() / ".config"
        return folder / "headrace" / "credentials"

    def find(self, names: Sequence[str], *, given: str | Secret | None = None) -> FoundKey | None:
        """The first key under any of ``names``, which go in their order within each place.

        Raises LLMAuthError where a file is reached that others can read or that has no such
        syntax, and for a key that no header can carry.
        """
        if given:
            return FoundKey(
                secret=given if isinstance(given, Secret) else Secret(given, source="api_key"),
                name=None,
                source="given by the caller",
            )
        for source, look in self._places():
            held = look()
            if isinstance(held, _Refused):
                raise LLMAuthError(held.why + (f"; run: {held.remedy}" if held.remedy else ""))
            for name in names:
                if held and held.get(name, "").strip():
                    secret = Secret(held[name], source=f"{name} in {source}")
                    return FoundKey(secret=secret, name=name, source=source)
        return None

    def require(
        self, whose: str, names: Sequence[str], *, given: str | Secret | None = None
    ) -> FoundKey:
        """As ``find``; where there is no key, LLMAuthError says which names it looked for and where."""
        found = self.find(names, given=given)
        if found is not None:
            return found
        if not names:
            raise LLMAuthError(f"{whose} needs a key and has no variable for it: hand in api_key")
        places = ", ".join(source for source, _ in self._places())
        raise LLMAuthError(
            f"no key for {whose}: set {' or '.join(names)}, or hand in api_key (looked in {places})"
        )

    def report(self, names: Sequence[str]) -> tuple[SourceReport, ...]:
        """What each place holds of ``names``, without the keys: for diagnostics. Raises nothing."""
        reports = []
        for source, look in self._places():
            held = look()
            if isinstance(held, _Refused):
                report = SourceReport(source=source, state="refused", remedy=held.remedy)
            elif held is None:
                report = SourceReport(source=source, state="absent")
            else:
                name = next((name for name in names if held.get(name, "").strip()), None)
                report = SourceReport(
                    source=source, state="nothing" if name is None else "found", name=name
                )
            reports.append(report)
        return tuple(reports)

    def _places(
        self,
    ) -> Iterable[tuple[str, Callable[[], Mapping[str, str] | _Refused | None]]]:
        yield "the environment", lambda: self.environment
        for path, private in ((self.dotenv, False), (self.config, True), (self.seed, True)):
            if path is not None:
                yield str(path), lambda path=path, private=private: self._file(path, private)  # type: ignore[misc]

    def _file(self, path: Path, private: bool) -> dict[str, str] | _Refused | None:
        if path not in self._read:
            self._read[path] = _read_file(path, private, self.environment)
        return self._read[path]


def template() -> str:
    """The text of a credentials file with every name that we know and no key."""
    from importlib.resources import files

    return (files("headrace.stores") / "credentials.template").read_text(encoding="utf-8")


def write_template(path: Path | None = None) -> Path:
    """Write the template to ``path`` (``~/.ipfs_api_credentials``), for its owner only.

    Raises FileExistsError where something is there already.
    """
    path = _home() / ".ipfs_api_credentials" if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(template())
    return path


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry for this user: then there are no such files
        return Path("/nonexistent")


def _read_file(
    path: Path, private: bool, environment: Mapping[str, str]
) -> dict[str, str] | _Refused | None:
    """The file's values; ``None`` where there is no such file."""
    try:
        # Whatever is checked must be what is read: so the open file, not its name.
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if private and stat.S_IMODE(status.st_mode) & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                return _Refused(
                    f"{path} holds keys and can be read by others (mode {mode:04o}, must be 0600)",
                    f"chmod 600 {path}",
                )
            if private and status.st_uid not in (os.geteuid(), 0):
                return _Refused(f"{path} belongs to another user (uid {status.st_uid})")
            text = file.read().decode("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except UnicodeDecodeError:
        return _Refused(f"{path} is not UTF-8 text")
    except OSError as error:
        return _Refused(f"{path} cannot be read: {error.strerror}")
    return _parse(path, text, strict=private, environment=environment)


def _parse(
    path: Path, text: str, *, strict: bool, environment: Mapping[str, str]
) -> dict[str, str] | _Refused:
    """The values in ``text``; ``${NAME}`` means the environment's, then one from further up.

    A line that is none of the syntax is refused where the file is ours alone (``strict``), and
    passed over where it belongs to others too.
    """
    from io import StringIO

    from dotenv.parser import parse_stream
    from dotenv.variables import parse_variables

    values: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error:
            if strict:
                line = binding.original.line
                return _Refused(f"{path}, line {line}: expected NAME=value (the line is not shown)")
            continue
        if binding.key is None or binding.value is None:
            continue
        known = {**values, **environment}
        atoms = parse_variables(binding.value)
        values[binding.key] = "".join(atom.resolve(known) for atom in atoms)
    return values
