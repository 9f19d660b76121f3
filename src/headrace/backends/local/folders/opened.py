"""The engine of a model's folder, with what its kind of model can do."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from attrs import fields, frozen

from headrace.backends.local.folders.answers import apart
from headrace.backends.local.folders.engine import FolderEngine, only_of
from headrace.backends.local.folders.frames import Embed, Score, Scores, Vectors
from headrace.backends.local.folders.kinds import kind_of
from headrace.backends.local.folders.rows import (
    TRANSFORMERS,
    check_folder_engine,
    engine_for,
    name_of,
)
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.ranking import (
    ClassificationRequest,
    ClassificationResult,
    LabelScore,
    RankedDocument,
    RerankRequest,
    RerankResult,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import EmbeddingResult, Usage
from headrace.net.clock import World

# So many texts are one batch of the child's, and one message to it.
_TEXTS_AT_ONCE = 32


class Embedding(FolderEngine):
    """One whose model makes vectors."""

    async def embed(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input."""
        marks.backend, marks.provider = self.name, self.provider.name
        _refuse_options(self.name, request)
        request = self.fit.inputs(request, marks)
        with self.life.use():
            line = await self.for_a_call()
            if request.dimensions not in (None, line.hello.dimensions):
                raise LLMCapabilityError(
                    f"{self.name} makes vectors of {line.hello.dimensions} numbers and does not "
                    f"shorten them to {request.dimensions}; leave 'dimensions' out",
                    param="dimensions",
                )
            marks.sent = self.world.clock.monotonic()
            vectors: list[array[float]] = []
            tokens = 0
            for begin in range(0, len(request.inputs), _TEXTS_AT_ONCE):
                some = request.inputs[begin : begin + _TEXTS_AT_ONCE]
                inputs = [each if isinstance(each, str) else list(each) for each in some]
                told = await only_of(line, partial(Embed, inputs=inputs, begin=begin))
                assert isinstance(told, Vectors)
                tokens += told.tokens
                vectors += apart(told)
            marks.first_byte = self.world.clock.monotonic()
        return EmbeddingResult(
            vectors=vectors, model_id=request.model or self.name, usage=_usage(tokens)
        )


@frozen(kw_only=True)
class Scored:
    """A row of scores for each text, one a label, and the tokens that were read for them."""

    rows: Sequence[Sequence[float]]
    labels: tuple[str, ...]
    tokens: int


class Classifying(FolderEngine):
    """One whose model puts texts in classes."""

    async def classify(self, request: ClassificationRequest, marks: Marks) -> ClassificationResult:
        """The classes of each input."""
        _refuse_options(self.name, request)
        scored = await self._scores(
            request.inputs, marks, truncate=request.truncate, raw=request.raw_scores
        )
        labels = [
            tuple(
                sorted(
                    (
                        LabelScore(label=label, score=score)
                        for label, score in zip(scored.labels, row, strict=True)
                    ),
                    key=lambda each: -each.score,
                )
            )
            for row in scored.rows
        ]
        return ClassificationResult(
            labels=tuple(labels),
            model_id=request.model or self.name,
            usage=_usage(scored.tokens),
        )

    async def _scores(
        self,
        texts: Sequence[str | tuple[str, str]],
        marks: Marks,
        *,
        truncate: bool | None,
        raw: bool | None,
        most_tokens: int | None = None,
    ) -> Scored:
        marks.backend, marks.provider = self.name, self.provider.name
        ask = partial(Score, truncate=bool(truncate), raw=raw, most_tokens=most_tokens)
        rows: list[list[float]] = []
        tokens = 0
        with self.life.use():
            line = await self.for_a_call()
            marks.sent = self.world.clock.monotonic()
            for begin in range(0, len(texts), _TEXTS_AT_ONCE):
                some = list(texts[begin : begin + _TEXTS_AT_ONCE])
                told = await only_of(line, partial(ask, texts=some, begin=begin))
                assert isinstance(told, Scores)
                rows += told.scores
                tokens += told.tokens
            marks.first_byte = self.world.clock.monotonic()
            return Scored(rows=rows, labels=tuple(line.hello.labels), tokens=tokens)


class Ranking(Classifying):
    """One whose model has one class: how well two texts fit."""

    async def rerank(self, request: RerankRequest, marks: Marks) -> RerankResult:
        """The documents, the most relevant first."""
        _refuse_options(self.name, request)
        pairs = [(request.query, document) for document in request.documents]
        scored = await self._scores(
            pairs,
            marks,
            truncate=request.truncate,
            raw=request.raw_scores,
            most_tokens=request.max_tokens_per_document,
        )
        if len(scored.labels) != 1:
            raise LLMCapabilityError(
                f"{self.name} puts texts in the classes {', '.join(scored.labels[:9])}, and does not "
                "rank documents; ask it for classes, or another model",
                param="model",
            )
        ranked = sorted(
            (
                RankedDocument(index=place, relevance_score=row[0])
                for place, row in enumerate(scored.rows)
            ),
            key=lambda each: -each.relevance_score,
        )
        return RerankResult(
            results=tuple(ranked[: request.top_n]),
            model_id=request.model or self.name,
            usage=_usage(scored.tokens),
        )


class Either(Embedding, Ranking):
    """One of which nobody knows yet what its model can do: its folder has to be fetched first."""


def open_folder_engine(config: EngineConfig, world: World) -> FolderEngine:
    """The engine of ``config``, of which nothing has been started yet.

    Raises LLMInvalidRequestError that names what of ``config`` it cannot carry out.
    """
    check_folder_engine(config)
    kind = _kind(config)
    return (Either if kind is None else _CLASSES[kind])(config, world, kind)


def makes_embeddings(model: str) -> bool:
    """Whether ``model`` is a folder whose model does, and nothing else."""
    folder = Path(model).expanduser()
    try:
        return folder.is_dir() and kind_of(folder).name == "embed"
    except LLMInvalidRequestError:  # whoever opens it is told why
        return False


async def running_on(model: str, device: str, _: str, world: World) -> FolderEngine:
    """The model in that folder on ``device`` (``cpu:0``, ``cuda:1``), once it answers; what it makes
    its folder says."""
    engine = open_folder_engine(_on(model, "cpu" if device == "cpu:0" else device), world)
    try:
        await engine.ensure_running()
    except BaseException:
        await engine.aclose()
        raise
    return engine


def _on(model: str, device: str) -> EngineConfig:
    folder = Path(model).expanduser()
    row = engine_for(folder) if folder.is_dir() else TRANSFORMERS
    return EngineConfig(
        name=name_of(folder),
        backend=row.name,
        model=model,
        device=device,
        idle_timeout_s=None,
    )


_CLASSES: Mapping[str, type[FolderEngine]] = {
    "generate": FolderEngine,
    "embed": Embedding,
    "rerank": Ranking,
    "classify": Classifying,
}


def _kind(config: EngineConfig) -> str | None:
    """The kind of its model, where that can be known without fetching or starting anything."""
    folder = Path(config.model).expanduser()
    if config.task is not None or not folder.is_dir():
        return config.task
    try:
        return kind_of(folder).name
    except LLMInvalidRequestError:  # its start says why
        return None


def _usage(tokens: int) -> Usage:
    return Usage(prompt_tokens=tokens, total_tokens=tokens)


def _refuse_options(
    name: str, request: EmbeddingRequest | RerankRequest | ClassificationRequest
) -> None:
    for option, value in request.provider_options.items():
        if value is not None:
            near = get_close_matches(option, [each.name for each in fields(type(request))], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise LLMInvalidRequestError(
                f"{name} knows no field {option[:100]!r}{hint}",
                param=option[:100],
                code="unknown_parameter",
            )
