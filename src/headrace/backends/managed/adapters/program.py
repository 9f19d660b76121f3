"""What a row about a program says, and the command line that follows from it and an engine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

from attrs import field, fields_dict, frozen

from headrace.backends.managed.adapters.flags import (
    NOTHING_KNOWN,
    Flag,
    Known,
    given,
    known_flags,
    plain,
    put_together,
)
from headrace.backends.managed.launch import SAID, Launch, ProgramMissingError, filled
from headrace.backends.managed.ports import HeldPort
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError

_GPUS = ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")


def has_gpu() -> bool:
    """Whether this machine has a GPU that engines compute on, as far as its devices tell."""
    return sys.platform == "darwin" or any(Path(path).exists() for path in _GPUS)


def _nothing(_: EngineConfig, __: bool) -> Mapping[str, str]:
    return {}


@frozen
class Serve:
    """The words that have a model served, and the name that it then has."""

    words: tuple[str, ...]
    name: str


@frozen(kw_only=True)
class Program:
    """One program's row.

    ``words`` follow its name, with ``{model}`` in its place; where they depend on what the model is,
    ``serve`` gives them, with the name under which it is served then. ``beside`` is run instead
    where the program is missing. ``install`` is the line to tell where nothing is there.

    ``flags`` are the flags, and ``variables`` the environment variables, that say our settings to
    it; what is in neither is refused. ``retired`` flags are left out where the installed version
    has none of that name, and the text is told. ``more`` gives flags that follow from several
    settings (those in ``by_more``), or from there being no GPU; a flag of the user's goes before
    each. ``variables_without_gpu`` are set where nobody set them.

    ``key_variable`` is where it reads the key that its callers must show. ``env`` is set for it
    always, ``offline`` where the model is a directory of this machine. ``{host}`` and ``{port}`` in
    either are put in. ``metrics_variable`` tells it the port on which it shows its metrics, where
    that is not its own. ``name_flag`` gives the model another name.
    """

    names: tuple[str, ...]
    provider: str
    default_port: int | None
    program: str
    install: str
    words: tuple[str, ...] = ()
    serve: Callable[[str], Serve] | None = None
    beside: Callable[[], tuple[str, ...]] = tuple
    host_flag: str | None = "--host"
    port_flag: str | None = "--port"
    model_flags: tuple[str, ...] = ("--model",)
    name_flag: str | None = None
    key_flag: str | None = "--api-key"
    key_variable: str | None = None
    metrics_variable: str | None = None
    flags: Mapping[str, str] = field(factory=dict)
    variables: Mapping[str, str] = field(factory=dict)
    retired: Mapping[str, str] = field(factory=dict)
    more: Callable[[EngineConfig, bool], Mapping[str, str]] = _nothing
    by_more: frozenset[str] = frozenset()
    env: Mapping[str, str] = field(factory=dict)
    offline: Mapping[str, str] = field(factory=dict)
    variables_without_gpu: Mapping[str, str] = field(factory=dict)
    help: tuple[str, ...] = ("--help",)
    base_path: str = "/v1"
    ready_path: str = "/health"
    other_names: Callable[[str], tuple[str, ...]] = lambda model: ()
    has_gpu: Callable[[], bool] = has_gpu

    def served_names(self, config: EngineConfig) -> tuple[str, ...]:
        """The model's name as it is written, as the user's flags have it, and what goes for it."""
        model = _expanded(config.model)
        names = [*self._renamed(config), config.model]
        if Path(model).exists():
            names += [str(Path(model).absolute()), Path(model).name]
        return tuple(dict.fromkeys((*names, *self.other_names(config.model))))

    def launch(self, config: EngineConfig, host: str, port: int) -> Launch:
        """How to start it; raises as an Adapter does."""
        self._refuse_unsaid(config)
        self._refuse_ours(config)
        asked = self._found(config)
        model = self._model(config)
        serve = Serve(self.words, model) if self.serve is None else self.serve(model)
        places = {"model": model, "host": host, "port": str(port)}
        env, notes = self._environment(config, places)
        flags, more_notes = self._flags(config, asked, env)
        metrics_url = None
        if self.metrics_variable is not None:
            # Two engines of one program would otherwise want the same one.
            port_of_metrics = env.setdefault(self.metrics_variable, _free_port(host))
            metrics_url = f"http://{_bracketed(host)}:{port_of_metrics}/metrics"
        renamed = self._renamed(config)
        words = list(serve.words)
        if renamed and self.serve is not None and self.name_flag in words:
            at = words.index(self.name_flag)
            del words[at : at + 2]
        for flag, value in ((self.host_flag, host), (self.port_flag, str(port))):
            if flag is not None:
                words += [flag, value]
        return Launch(
            argv=(*asked, *(filled(word, places) for word in words), *flags),
            env=env,
            base_url=f"http://{_bracketed(host)}:{port}{self.base_path}",
            ready_path=self.ready_path,
            model=(*renamed, serve.name)[0],
            key_variable=self.key_variable,
            metrics_url=metrics_url,
            notes=(*notes, *more_notes),
        )

    def _refuse_unsaid(self, config: EngineConfig) -> None:
        can = self.flags.keys() | self.variables.keys() | self.by_more
        for name in SAID:
            if name not in can and getattr(config, name) not in (None, False):
                raise _wrong(
                    config,
                    name,
                    f"{self.names[0]} has no such setting; leave it out, or write a flag of its own "
                    "into extra_serve_flags",
                )
        for name in ("api_key", "api_key_env"):
            if getattr(config, name) is not None and self.key_variable is None:
                raise LLMInvalidRequestError(
                    f"engine {config.name!r}: {name} is given, and {self.names[0]} has no way to be "
                    "told a key in secret; leave it out (it listens on this machine only)",
                    param=name,
                )

    def _refuse_ours(self, config: EngineConfig) -> None:
        ours: dict[str | None, str] = {
            self.host_flag: "leave it out: an engine that we start listens on this machine only",
            self.port_flag: "say port instead",
            self.key_flag: "say api_key_env instead: every user of this machine sees a command line",
            **dict.fromkeys(self.model_flags, "say model instead"),
        }
        right = {plain(flag): what for flag, what in ours.items() if flag is not None}
        for word in given(config.extra_serve_flags):
            if plain(word) in right:
                flag = word.partition("=")[0]
                raise LLMInvalidRequestError(
                    f"engine {config.name!r}: {flag} is in extra_serve_flags; {right[plain(word)]}",
                    param="extra_serve_flags",
                )

    def _found(self, config: EngineConfig) -> tuple[str, ...]:
        """The program, and for a module of ours the interpreter that runs it."""
        if config.program is not None:
            path = shutil.which(_expanded(config.program), path=config.extra_env.get("PATH"))
            if path is None:
                raise ProgramMissingError(
                    f"engine {config.name!r}: program is {config.program!r}, and there is none that "
                    f"can be run; to have it: {self.install}",
                    param="program",
                )
            return (path,)
        path = shutil.which(self.program, path=config.extra_env.get("PATH"))
        # An environment's programs are found without its being activated, as its modules are.
        path = path or shutil.which(self.program, path=str(Path(sys.executable).parent))
        if path is not None:
            return (path,)
        if beside := self.beside():
            return beside
        raise ProgramMissingError(
            f"engine {config.name!r}: {self.program} is not installed here (looked on PATH and "
            f"beside {sys.executable}); to have it: {self.install}; or say program",
            param="backend",
        )

    def _model(self, config: EngineConfig) -> str:
        model = _expanded(config.model)
        if _is_path(model) and not Path(model).exists():
            raise _wrong(config, "model", "there is no such file or directory")
        return model

    def _environment(
        self, config: EngineConfig, places: Mapping[str, str]
    ) -> tuple[dict[str, str], tuple[str, ...]]:
        env = {name: filled(value, places) for name, value in self.env.items()}
        if Path(places["model"]).is_dir():
            env.update(self.offline)
        if config.gpu_ids:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, config.gpu_ids))
        for name, variable in self.variables.items():
            if getattr(config, name) is not None:
                env[variable] = str(getattr(config, name))
        if self.variables_without_gpu and not self.has_gpu():
            for name, value in self.variables_without_gpu.items():
                if name not in os.environ:
                    env[name] = value
        twice = sorted(
            name for name in env.keys() & config.extra_env.keys() if name in _SET_BY_FIELDS
        )
        notes = tuple(
            f"{name} is given twice, by {_SET_BY_FIELDS[name]} and in extra_env; the latter counts"
            for name in twice
        )
        return {**env, **config.extra_env}, notes

    def _flags(
        self, config: EngineConfig, asked: tuple[str, ...], env: Mapping[str, str]
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The flags and the notes; ``--help`` is asked only where there is something to check."""
        ours = [
            Flag(flag, () if value is True else (str(value),), name)
            for name, flag in self.flags.items()
            if (value := getattr(config, name)) not in (None, False)
        ]
        more = [Flag(flag, (value,)) for flag, value in self.more(config, self.has_gpu()).items()]
        notes: list[str] = []
        known = None
        if ours or (more and config.extra_serve_flags):
            known = known_flags((*asked, *self.help), env)
            if known is None:
                notes.append(f"{asked[0]} did not tell which flags it knows: none is checked")
            else:
                ours = [flag for flag in ours if self._is_known(config, flag, known, asked, notes)]
        words, more_notes = put_together(
            [*ours, *more], config.extra_serve_flags, known or NOTHING_KNOWN
        )
        return words, (*notes, *more_notes)

    def _is_known(
        self,
        config: EngineConfig,
        flag: Flag,
        known: Known,
        asked: tuple[str, ...],
        notes: list[str],
    ) -> bool:
        if flag.name in known:
            return True
        assert flag.of is not None
        if flag.name in self.retired:
            if config.reasoning_parser is None:
                raise _wrong(config, flag.of, self.retired[flag.name])
            notes.append(f"{flag.name} is left out: {self.retired[flag.name]}")
            return False
        raise _wrong(
            config,
            flag.of,
            f"{asked[0]} knows no {flag.name}; leave it out, or install another version "
            f"({self.install})",
        )

    def _renamed(self, config: EngineConfig) -> tuple[str, ...]:
        """The names that the user's own flags give the model."""
        if self.name_flag is None:
            return ()
        flags = config.extra_serve_flags
        for i, word in enumerate(flags):
            if plain(word) == plain(self.name_flag) and word.startswith("-"):
                _, is_joined, value = word.partition("=")
                if is_joined:
                    return (value,)
                rest = flags[i + 1 :]
                end = next((j for j, each in enumerate(rest) if each.startswith("-")), len(rest))
                return rest[:end]
        return ()


_SET_BY_FIELDS = {
    "CUDA_VISIBLE_DEVICES": "gpu_ids",
    "OLLAMA_CONTEXT_LENGTH": "max_model_len",
    "OLLAMA_HOST": "port",
}


def _wrong(config: EngineConfig, name: str, why: str) -> LLMInvalidRequestError:
    assert name in fields_dict(EngineConfig)
    return LLMInvalidRequestError(
        f"engine {config.name!r}: {name} is {getattr(config, name)!r}; {why}", param=name
    )


def _expanded(path: str) -> str:
    return str(Path(path).expanduser()) if path.startswith("~") else path


def _is_path(model: str) -> bool:
    return model.startswith((".", "~")) or PurePath(model).is_absolute()


def _free_port(host: str) -> str:
    with HeldPort(host) as held:
        return str(held.number)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
