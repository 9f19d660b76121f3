"""A model in numpy whose every next token hangs on all tokens before it, and its alphabet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np

from headrace.backends.local.folders.computing import Loaded

LETTERS = "abcdefghijklmnopqrstuvwxyz .,!?\n"
END = len(LETTERS)
WIDTH = END + 1


class Alphabet:
    """A tokenizer of one token a letter."""

    def ids(self, text: str, *, special: bool) -> list[int]:
        return [LETTERS.index(letter) for letter in text]

    def text(self, ids: Sequence[int]) -> str:
        return "".join(LETTERS[each] for each in ids if each != END)

    def piece(self, token: int) -> bytes:
        return b"" if token == END else LETTERS[token].encode()


def next_of(text: Sequence[int]) -> int:
    """The token that follows ``text``: one in 40 texts ends."""
    total = crc32(bytes(text))
    return END if total % 40 == 7 else total % END


class Counting:
    """Its memory of texts is the texts, the shorter ones filled up at their beginnings with -1."""

    width = WIDTH

    def __init__(self, *, joins: bool = True) -> None:
        self.joins = joins
        self.steps: list[int] = []
        """How many texts each step wrote."""
        self.pieces: list[int] = []
        """How many tokens of a prompt were read at once."""

    def _scores(self, past: np.ndarray) -> np.ndarray:
        scores = np.zeros((len(past), WIDTH), dtype=np.float32)
        for row, text in zip(scores, past, strict=True):
            row[next_of([each for each in text.tolist() if each >= 0])] = 9
        return scores

    def read(self, past: Any, ids: Sequence[int]) -> tuple[Any, Any]:
        self.pieces.append(len(ids))
        new = np.array([list(ids)])
        past = new if past is None else np.concatenate([past, new], axis=1)
        return past, self._scores(past)

    def write(self, past: Any, ids: Sequence[int], lengths: Sequence[int]) -> tuple[Any, Any]:
        self.steps.append(len(ids))
        assert [int((row >= 0).sum()) for row in past] == list(lengths)
        assert past.shape[1] == max(lengths)
        past = np.concatenate([past, np.array(list(ids))[:, None]], axis=1)
        return past, self._scores(past)

    def can_join(self, past: Any) -> bool:
        return self.joins

    def join(self, pasts: Sequence[Any]) -> Any:
        longest = max(past.shape[1] for past in pasts)
        return np.concatenate(
            [
                np.pad(past, ((0, 0), (longest - past.shape[1], 0)), constant_values=-1)
                for past in pasts
            ]
        )

    def keep(self, past: Any, rows: Sequence[int], longest: int) -> Any:
        return past[list(rows), -longest:]

    def copy(self, past: Any) -> Any:
        return past.copy()

    def likeliest(self, scores: Any) -> list[int]:
        return scores.argmax(-1).tolist()

    def row(self, scores: Any, row: int) -> Any:
        return scores[row]


def counting(decoder: Counting, context: int = 200) -> Loaded:
    return Loaded(
        tokenizer=Alphabet(),  # type: ignore[arg-type]
        context_tokens=context,
        fingerprint="counting",
        ends=frozenset({END}),
        decoder=decoder,
        defaults={"temperature": 0.0},
    )


def whole_text(prompt: str, most: int) -> tuple[str, str]:
    """What it writes after ``prompt``, and why it stops."""
    text = Alphabet().ids(prompt, special=False)
    made: list[int] = []
    while len(made) < most:
        token = next_of([*text, *made])
        made.append(token)
        if token == END:
            return Alphabet().text(made), "stop"
    return Alphabet().text(made), "length"
