"""Calls whose texts are computed whole: vectors of texts, scores of pairs, many in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field

from headrace.backends.local.folders.computing import Loaded
from headrace.backends.local.folders.frames import Embed, Score, Scores, Vectors
from headrace.contracts.errors import LLMContextLengthError, LLMInvalidRequestError

# The most that is computed between two looks at who has come or left.
_TEXTS, _TOKENS = 32, 8192


@define(eq=False)
class WholeCall:
    """One call: how many of its texts are not computed yet, and what came of the others."""

    owner: Any
    asked: Embed | Score
    left: int
    tokens: int
    made: list[Any] = field(factory=list)

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return not self.left


@define(eq=False)
class _Text:
    call: WholeCall
    place: int
    ids: Sequence[int]
    types: Sequence[int]


class Whole:
    """Everything that is to be computed whole; ``brought`` is called with a call's owner and result."""

    def __init__(
        self, loaded: Loaded, kind: str, brought: Callable[[Any, Vectors | Scores], None]
    ) -> None:
        assert loaded.encoder is not None
        self._loaded, self._encoder, self._kind = loaded, loaded.encoder, kind
        self._brought = brought
        self._texts: deque[_Text] = deque()

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._texts)

    def add(self, owner: Any, asked: Embed | Score) -> WholeCall:
        """Have ``asked`` computed; raises an LLMError where it cannot be."""
        if isinstance(asked, Embed):
            encoded = [self._encoded(each, asked.begin + i) for i, each in enumerate(asked.inputs)]
        else:
            encoded = [
                self._scored(each, asked, asked.begin + i) for i, each in enumerate(asked.texts)
            ]
        tokens = sum(len(ids) for ids, _ in encoded)
        call = WholeCall(owner, asked, len(encoded), tokens, [None] * len(encoded))
        if not encoded:
            self._tell(call)
        self._texts += [_Text(call, i, ids, types) for i, (ids, types) in enumerate(encoded)]
        return call

    def cancel(self, call: WholeCall) -> None:
        """Compute no more of it."""
        self._texts = deque(text for text in self._texts if text.call is not call)

    def step(self) -> None:
        """Compute the next batch."""
        batch = self._batch()
        said = self._encoder.encode([text.ids for text in batch], [text.types for text in batch])
        if self._kind == "embed":
            assert self._loaded.pooling is not None
            said = self._loaded.pooling.vectors(said, [len(text.ids) for text in batch])
        for text, result in zip(batch, said, strict=True):
            call = text.call
            call.made[text.place] = result
            call.left -= 1
            if not call.left:
                self._tell(call)

    def _batch(self) -> list[_Text]:
        """The one that has waited longest, and those behind it that are computed along with it."""
        oldest = self._texts.popleft()
        some = [self._texts.popleft() for _ in range(min(_TEXTS - 1, len(self._texts)))]
        batch, longest = [oldest], len(oldest.ids)
        left = []
        for text in sorted(some, key=lambda text: len(text.ids)):
            longest_then = max(longest, len(text.ids))
            if (len(batch) + 1) * longest_then <= _TOKENS:
                batch.append(text)
                longest = longest_then
            else:
                left.append(text)
        self._texts.extendleft(reversed(left))
        return batch

    def _tell(self, call: WholeCall) -> None:
        import numpy as np

        number = call.asked.call_id
        if isinstance(call.asked, Score):
            scores = self._scores(np.stack(call.made), call.asked.raw) if call.made else []
            self._brought(call.owner, Scores(number, scores, call.tokens))
            return
        floats = b"".join(each.tobytes() for each in call.made)
        size = len(call.made[0]) if call.made else self._loaded.dimensions or 0
        self._brought(call.owner, Vectors(number, floats, size, call.tokens))

    def _scores(self, scores: Any, raw: bool | None) -> list[list[float]]:
        import numpy as np

        how = "none" if raw else self._loaded.activation
        if raw is False and how == "none":
            how = "each" if len(self._loaded.labels) == 1 else "together"
        scores = scores.astype(np.float64)
        if how == "each":
            scores = 1 / (1 + np.exp(-scores))
        elif how == "together":
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = odds / odds.sum(axis=1, keepdims=True)
        found: list[list[float]] = scores.tolist()
        return found

    def _encoded(self, given: str | list[int], place: int) -> tuple[list[int], list[int]]:
        pooling = self._loaded.pooling
        assert pooling is not None
        if isinstance(given, str):
            text = pooling.prefix + given
            ids, types = self._loaded.tokenizer.encoded(text.lower() if pooling.lower else text)
        else:
            width = self._encoder.width
            wrong = next((each for each in given if not 0 <= each < width), None)
            if wrong is not None:
                raise LLMInvalidRequestError(
                    f"input[{place}] holds the token id {wrong}; this model's are 0 to {width - 1}",
                    param="input",
                    code="invalid_value",
                )
            ids, types = given, [0] * len(given)
        if not ids:
            raise LLMInvalidRequestError(
                f"input[{place}] has no tokens; write something", param="input"
            )
        self._check_length(len(ids), f"input[{place}]")
        return ids, types

    def _scored(
        self, given: str | tuple[str, str], asked: Score, place: int
    ) -> tuple[list[int], list[int]]:
        first, second = (given, None) if isinstance(given, str) else given
        tokenizer = self._loaded.tokenizer
        if second is not None and asked.most_tokens is not None:
            second = tokenizer.beginning(second, asked.most_tokens)
        most = self._loaded.context_tokens if asked.truncate else None
        ids, types = tokenizer.encoded(first, second, most=most)
        where = (
            f"input[{place}]" if second is None else f"documents[{place}] with what it is read with"
        )
        self._check_length(len(ids), where)
        return ids, types

    def _check_length(self, tokens: int, where: str) -> None:
        most = self._loaded.context_tokens
        if tokens > most:
            raise LLMContextLengthError(
                f"{where} has {tokens} tokens, and this model reads at most {most}: divide it into "
                "shorter pieces",
                param=where.partition(" ")[0],
            )
