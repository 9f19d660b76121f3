"""The embedding model in the box: llama.cpp once more, fetched and started when first asked.

Most who serve a chat model never ask for a vector, so nothing of it is on their way: neither its
download nor its process.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from attrs import evolve, frozen

from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.backends.local.waking import Waking
from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance
from headrace.net.clock import World
from headrace.stores.models import ModelFile
from headrace.wire import openai_embeddings

log = logging.getLogger(__name__)

_TOKENISED_AT_ONCE = 32
_LEAST_CONTEXT = 512
_TRUNCATION = ("truncate", "truncation_direction")


@frozen(kw_only=True)
class EmbedderSettings:
    """How the engine is started; what is named here is as in LlamaCppSettings.

    ``max_input_tokens`` is the longest input, its beginning and end marks included.
    """

    name: str
    slots: int = 32
    threads: int = 0
    max_input_tokens: int = 256


class LocalEmbedder:
    """A Backend that makes embeddings alone; ``find`` gives the model's file, fetched if need be."""

    def __init__(
        self,
        settings: EmbedderSettings,
        find: Callable[[], Awaitable[ModelFile]],
        world: World,
    ) -> None:
        self.name = settings.name
        self.dimensions: int | None = None
        self._settings, self._find, self._world = settings, find, world
        self._waking = Waking(self.name, "the embedding model", self._start, world.clock)
        self._tokenising = asyncio.Semaphore(_TOKENISED_AT_ONCE)

    @property
    def model_path(self) -> Path | None:
        """The model's file, once it was looked for."""
        return None if self._engine is None else self._engine.model_path

    @property
    def is_ready(self) -> bool:
        """Whether its engine runs; one that sleeps is woken by the next request."""
        return self._engine is not None and self._engine.is_ready

    @property
    def _engine(self) -> LlamaCpp | None:
        return self._waking.engine

    async def wake(self) -> LlamaCpp:
        """The engine, once it runs; whoever comes meanwhile waits for the same start.

        Raises the LLMError with which the start failed; another one is tried after 30 s.
        """
        return await self._waking.wake()

    async def prepare(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingRequest:
        """``request`` with its texts as token ids and without what is done for it already.

        Raises LLMContextLengthError that names the first input that is too long.
        """
        marks.backend, marks.provider = self.name, LLAMA_CPP_SERVER.name
        engine = await self.wake()
        self._refuse_settings(request)
        if request.user is not None:
            marks.dropped.append("user")
        inputs = await asyncio.gather(*(self._tokens(engine, each) for each in request.inputs))
        if request.provider_options.get("truncate"):
            left = request.provider_options.get("truncation_direction") == "Left"
            inputs = [_cut(tokens, self._most_tokens(), left=left) for tokens in inputs]
        self._check_lengths(inputs)
        kept = {k: v for k, v in request.provider_options.items() if k not in _TRUNCATION}
        return evolve(
            request, inputs=tuple(inputs), dimensions=None, user=None, provider_options=kept
        )

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input, of length 1."""
        engine = await self.wake()
        if not all(isinstance(each, tuple) for each in request.inputs):
            request = await self.prepare(request, marks)
        try:
            return await engine.vectors(evolve(request, model=self.name), marks)
        except LLMInvalidRequestError as error:
            if "invalid tokens" not in error.message:
                raise
            raise LLMInvalidRequestError(
                f"among the token ids are some that {self.name} does not have",
                param="input",
                code="invalid_value",
            ) from error

    async def tokens_of(self, text: str, *, special: bool) -> tuple[tuple[int, bytes], ...]:
        """The tokens of ``text``, as in LlamaCpp."""
        engine = await self.wake()
        async with self._tokenising:
            return await engine.tokens_of(text, special=special)

    async def text_of(self, ids: Sequence[int]) -> str:
        """What the tokens of these numbers say together."""
        engine = await self.wake()
        return await engine.text_of(ids)

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """Refuses: this model generates nothing."""
        raise LLMCapabilityError(
            f"{self.name} makes embeddings, not text: ask /v1/embeddings, or another model",
            param="model",
        )

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        most = self._settings.max_input_tokens
        return (ModelInfo(model_id=self.name, max_context_tokens=most),)

    async def status(self) -> BackendStatus:
        """Whether it answers; one that sleeps does, as soon as it is asked."""
        if self._engine is not None:
            return await self._engine.status()
        message = "starts with the first request"
        if self._waking.failure is not None:
            message += f"; the last start failed: {self._waking.failure}"
        return BackendStatus(ok=True, message=message, checked_at=Provenance.now_iso())

    def capabilities(self) -> BackendCapabilities:
        """Embeddings, and nothing else."""
        return BackendCapabilities(
            streaming=False,
            tool_calling="none",
            json_mode="none",
            vision=False,
            max_context_tokens=self._settings.max_input_tokens,
            embeddings=True,
        )

    def snapshot(self) -> Mapping[str, object]:
        """The child process: for diagnostics; empty while there is none."""
        return {} if self._engine is None else self._engine.snapshot()

    async def aclose(self) -> None:
        """End the engine, or give its start up."""
        engine = await self._waking.close()
        if engine is not None:
            await engine.aclose()

    async def _start(self) -> LlamaCpp:
        file = await self._find()
        engine = LlamaCpp(
            LlamaCppSettings(
                name=self.name,
                path=file.path,
                slots=self._settings.slots,
                kv_tokens=max(_LEAST_CONTEXT, self._settings.max_input_tokens),
                threads=self._settings.threads,
                embeddings=True,
            ),
            self._world,
        )
        try:
            await engine.start()
            # Shows that the model makes embeddings at all, and of which length.
            probe = await engine.vectors(EmbeddingRequest(inputs=("a",)), Marks())
        except BaseException:
            await engine.aclose()
            raise
        self.dimensions = len(probe.vectors[0])
        return engine

    def _refuse_settings(self, request: EmbeddingRequest) -> None:
        if request.dimensions not in (None, self.dimensions):
            raise LLMCapabilityError(
                f"{self.name} makes vectors of {self.dimensions} numbers and was not trained to "
                f"have them shortened to {request.dimensions}; leave 'dimensions' out",
                param="dimensions",
            )
        truncate = request.provider_options.get("truncate")
        if not isinstance(truncate, bool | None):
            raise LLMInvalidRequestError(
                f"truncate is {truncate!r}, must be true or false", param="truncate"
            )
        for name, value in request.provider_options.items():
            if value is not None and name not in _TRUNCATION:
                near = get_close_matches(name, openai_embeddings.ROWS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise LLMInvalidRequestError(
                    f"{self.name} knows no field {name[:100]!r}{hint}",
                    param=name[:100],
                    code="unknown_parameter",
                )

    async def _tokens(self, engine: LlamaCpp, given: str | tuple[int, ...]) -> tuple[int, ...]:
        if isinstance(given, tuple):
            return given
        async with self._tokenising:
            return await engine.prompt_tokens(LLMRequest(messages=(), prompt=given))

    def _most_tokens(self) -> int:
        assert self._engine is not None
        most = self._settings.max_input_tokens
        return min(most, self._engine.context_tokens or most)

    def _check_lengths(self, inputs: Sequence[tuple[int, ...]]) -> None:
        most = self._most_tokens()
        for place, tokens in enumerate(inputs):
            if len(tokens) > most:
                where = "input" if len(inputs) == 1 else f"input[{place}]"
                raise LLMContextLengthError(
                    f"'{where}' has {len(tokens)} tokens, {self.name} reads at most {most}: "
                    "divide it into shorter pieces",
                    param=where,
                )


def _cut(tokens: tuple[int, ...], most: int, *, left: bool) -> tuple[int, ...]:
    """At most so many of ``tokens``, from the end or, with ``left``, from the beginning; the marks at
    either end stay."""
    if len(tokens) <= most or most < 3:
        return tokens
    if left:
        return (tokens[0], *tokens[len(tokens) - most + 1 :])
    return (*tokens[: most - 1], tokens[-1])
