"""The programs that we know how to start: one adapter each, found by ``EngineConfig.backend``."""

from __future__ import annotations

from difflib import get_close_matches

from headrace.backends.managed.adapters.command import CommandLine
from headrace.backends.managed.adapters.llama_server import LLAMA_SERVER
from headrace.backends.managed.adapters.programs import PROGRAMS
from headrace.backends.managed.launch import Adapter
from headrace.contracts.errors import LLMInvalidRequestError

ADAPTERS: tuple[Adapter, ...] = (*PROGRAMS, LLAMA_SERVER, CommandLine())


def adapter_for(backend: str) -> Adapter:
    """The adapter of the program that ``backend`` names.

    Raises LLMInvalidRequestError that names the known ones.
    """
    known = known_backends()
    if backend in known:
        return known[backend]
    near = get_close_matches(backend, list(known), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise LLMInvalidRequestError(
        f"backend is {backend!r}, which is no program that we start; {hint}known: "
        f"{', '.join(known)}",
        param="backend",
    )


def known_backends() -> dict[str, Adapter]:
    """Every value of ``EngineConfig.backend`` that means a program of ours to start."""
    return {name: adapter for adapter in ADAPTERS for name in adapter.names}
