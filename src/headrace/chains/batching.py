"""Steps that are asked in batches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from headrace.chains.asking import Asked, Askers
from headrace.chains.graph import Chain
from headrace.chains.journal import Done
from headrace.chains.nodes import Step
from headrace.client.async_client import AsyncClient
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.run import Run


class Batching:
    """The batches of one run."""

    def __init__(
        self,
        chain: Chain,
        folder: Path,
        askers: Askers,
        clients: Mapping[str, AsyncClient],
        run: Run,
    ) -> None:
        self.collects = False
        for node in chain.nodes:
            if isinstance(node, Step) and node.mode == "batch":
                raise LLMInvalidRequestError(f"{node.id}: mode is 'batch', which is to come")

    async def ask(self, key: bytes, asked: Asked) -> Done:
        """What a batch answered; raises NotYet where it has yet to be asked."""
        raise NotImplementedError

    async def resume(self) -> None:
        """Have the batches end that an earlier run began."""

    async def run(self) -> None:
        """Have asked what was collected."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...
