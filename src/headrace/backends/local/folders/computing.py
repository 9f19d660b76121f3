"""What an engine has to compute for the child: the protocols that each of them meets.

Arrays are the engine's own and are handed on unseen; only scores and hidden states come out as
numpy's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from attrs import field, frozen

from headrace.backends.local.folders.files import Activation
from headrace.backends.local.folders.pooling import Pooling
from headrace.backends.local.folders.template import ChatTemplate
from headrace.backends.local.folders.text import Tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@frozen(kw_only=True)
class Loading:
    """How a model is loaded. ``slots`` answers are written at once; a prompt is read ``chunk``
    tokens at a time, so that nobody's next token waits longer than that."""

    folder: Path
    kind: str
    device: str = "cpu"
    dtype: str | None = None
    attention: str | None = None
    trust_remote_code: bool = False
    max_model_len: int | None = None
    slots: int = 16
    chunk: int = 512


class Decoder(Protocol):
    """Computes the next tokens of several texts at once.

    ``past`` is what it remembers of texts: an object of its own, with one row a text.
    """

    width: int
    """For how many tokens there are scores."""

    def read(self, past: Any, ids: Sequence[int]) -> tuple[Any, Any]:
        """``past`` of one text (``None``: of none) with ``ids`` after it, and the next scores."""

    def write(self, past: Any, ids: Sequence[int], lengths: Sequence[int]) -> tuple[Any, Any]:
        """``past`` with one token more of each text, which had ``lengths`` tokens; the next scores."""

    def can_join(self, past: Any) -> bool:
        """Whether ``past`` of several texts can be put together."""

    def join(self, pasts: Sequence[Any]) -> Any:
        """One of all their rows."""

    def keep(self, past: Any, rows: Sequence[int], longest: int) -> Any:
        """Of ``past`` those ``rows``, the longest of which has ``longest`` tokens."""

    def copy(self, past: Any) -> Any:
        """Another of the same."""

    def likeliest(self, scores: Any) -> list[int]:
        """The token of the highest score in each row."""

    def row(self, scores: Any, row: int) -> NDArray[np.float32]:
        """The scores of one row."""


class Encoder(Protocol):
    """Computes whole texts at once: hidden states, or a classifier's scores."""

    width: int
    """How many tokens it knows."""

    def encode(self, ids: Sequence[Sequence[int]], types: Sequence[Sequence[int]]) -> Any:
        """What the model says to each text, as numpy's: hidden states (texts, tokens, width), of
        which those behind a text's own tokens mean nothing, or scores (texts, labels)."""


@frozen(kw_only=True)
class Loaded:
    """A model that runs: ``decoder`` where it writes text, else ``encoder``, with its ``pooling`` or
    its ``labels``."""

    tokenizer: Tokenizer
    context_tokens: int
    fingerprint: str
    ends: frozenset[int] = frozenset()
    template: ChatTemplate | None = None
    decoder: Decoder | None = None
    encoder: Encoder | None = None
    defaults: dict[str, Any] = field(factory=dict)
    pooling: Pooling | None = None
    dimensions: int | None = None
    labels: tuple[str, ...] = ()
    activation: Activation = "none"
