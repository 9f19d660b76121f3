"""What starting an engine's server takes: told by one adapter a program, done by ``server``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from attrs import field, frozen

from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMUnavailableError

SAID = (
    "dtype",
    "gpu_memory_utilization",
    "max_model_len",
    "tensor_parallel_size",
    "enable_reasoning",
    "reasoning_parser",
    "device",
    "attention",
    "trust_remote_code",
    "task",
    "slots",
)
"""The settings that are said to a program, each by a flag or a variable of its own, if it has one."""


class ProgramMissingError(LLMUnavailableError):
    """An engine's program is not installed here; the message has the line that installs it."""

    default_transient = False


@frozen(kw_only=True)
class Launch:
    """A command line that serves one model on one port of this machine.

    ``env`` is added to our own environment, for this process only. ``base_url`` is where its
    format's paths begin (``http://127.0.0.1:8000/v1``); ``ready_path`` is asked from the root until
    it answers 200. ``model`` is the name under which it serves the model. ``key_variable`` is the
    environment variable by which it is told the key that its callers show. ``metrics_url`` is where
    it tells how full it is, where that is not what its provider's row says. ``notes`` are told to the
    user once: a flag given twice, a setting that this version does not know.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(factory=dict, repr=lambda env: repr(sorted(env)))
    base_url: str
    ready_path: str = "/health"
    model: str
    key_variable: str | None = None
    metrics_url: str | None = None
    notes: tuple[str, ...] = ()


class Adapter(Protocol):
    """One program's ways. All of its methods are cheap, but for ``launch``, which may ask ``--help``."""

    @property
    def names(self) -> tuple[str, ...]:
        """The values of ``EngineConfig.backend`` that mean it, ours first."""

    @property
    def provider(self) -> str:
        """Its row in the provider table."""

    @property
    def default_port(self) -> int | None:
        """The port that its users expect it on; None where there is none."""

    def served_names(self, config: EngineConfig) -> tuple[str, ...]:
        """The names under which a server that has this engine's model may list it."""

    def launch(self, config: EngineConfig, host: str, port: int) -> Launch:
        """How to start it.

        Raises ProgramMissingError with the pip or install line where the program is not here, and
        LLMInvalidRequestError that names the field for a setting that it cannot carry out.
        """


def filled(word: str, places: Mapping[str, str]) -> str:
    """``word`` with each ``{name}`` of ``places`` put in."""
    # Not str.format: a command may hold braces of its own, JSON for one.
    for name, value in places.items():
        word = word.replace("{" + name + "}", value)
    return word
