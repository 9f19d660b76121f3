"""Which token comes next: one answer's settings made a choice among scores, with numpy alone."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from headrace.backends.local.folders.frames import Logprob, Sampling
from headrace.contracts.errors import LLMProviderError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]

_NEVER = float("-inf")
# Below it scores would grow beyond what 32 bits hold; nothing but the likeliest token is chosen there.
_COLD = 1e-6
# Nearly always enough of the likeliest tokens to find those that make up ``top_p``.
_LIKELIEST = 1024


class Sampler:
    """Chooses the tokens of one answer, one after the other.

    Scores are changed in the order of transformers: penalties, temperature, top_k, top_p, min_p.
    ``repetition_penalty`` counts the prompt, the other two what was written. ``matcher`` bars what
    a grammar does not allow. ``ends`` are the tokens that end an answer.
    """

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        ends: Collection[int],
        piece: Callable[[int], bytes],
        *,
        place: int = 0,
        matcher: Any = None,
    ) -> None:
        self._sampling, self._ends, self._piece = sampling, sorted(ends), piece
        self._matcher = matcher
        self._written: Counter[int] = Counter()
        self._seen: set[int] = set(prompt)
        # Made at the first draw: most answers in tests and tools are greedy.
        self._seed = (
            secrets.randbits(63) if sampling.seed is None else (sampling.seed + place) % (1 << 63)
        )
        self._random: np.random.Generator | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the token of the highest score is chosen, and nothing else is to be known."""
        said = self._sampling
        return (
            not said.temperature
            and said.repetition_penalty in (None, 1)
            and not (said.frequency_penalty or said.presence_penalty or said.logit_bias)
            and said.alternatives < 0
            and self._matcher is None
            and not said.ignore_eos
        )

    @property
    def tells(self) -> bool:
        """Whether log probabilities are to be told."""
        return self._sampling.alternatives >= 0

    def take(self, token: int) -> None:
        """``token`` was chosen."""
        self._written[token] += 1
        self._seen.add(token)
        if self._matcher is not None:
            self._matcher.take(token)

    def choose(self, scores: Scores) -> int:
        """The next token; ``scores`` are not changed."""
        import numpy as np

        said = self._sampling
        scores = self._changed(scores.astype(np.float32, copy=True))
        temperature = said.temperature or 0.0
        if temperature < _COLD:
            return int(scores.argmax())
        scores /= np.float32(temperature)
        tokens = self._likely(scores)
        odds = _softmax(scores[tokens])
        if said.min_p:
            kept = odds >= said.min_p * odds.max()
            tokens, odds = tokens[kept], odds[kept]
        if self._random is None:
            self._random = np.random.Generator(np.random.PCG64(self._seed))
        # One draw a token, however many may be chosen: the same seed gives the same text.
        reached = np.cumsum(odds, dtype=np.float64)
        drawn = self._random.random() * reached[-1]
        return int(tokens[min(int(np.searchsorted(reached, drawn, "right")), len(tokens) - 1)])

    def told(self, scores: Scores, token: int) -> Logprob:
        """The log probability of ``token`` by the model's own ``scores``, and of the likeliest."""
        import numpy as np

        scores = scores.astype(np.float32)
        highest = scores.max()
        whole = highest + np.log(np.exp(scores - highest, dtype=np.float32).sum(dtype=np.float64))
        most = min(self._sampling.alternatives, len(scores))
        top: list[tuple[bytes, float]] = []
        if most > 0:
            found = np.argpartition(scores, -most)[-most:]
            for each in found[np.argsort(-scores[found], kind="stable")]:
                top.append((self._piece(int(each)), float(scores[each] - whole)))
        return self._piece(token), float(scores[token] - whole), top

    def _changed(self, scores: Scores) -> Scores:
        import numpy as np

        said = self._sampling
        if said.repetition_penalty not in (None, 1) and self._seen:
            seen = np.fromiter(self._seen, dtype=np.int64)
            seen = seen[seen < len(scores)]
            had = scores[seen]
            penalty = np.float32(said.repetition_penalty)
            scores[seen] = np.where(had < 0, had * penalty, had / penalty)
        if (said.frequency_penalty or said.presence_penalty) and self._written:
            for token, times in self._written.items():
                scores[token] -= said.frequency_penalty * times + said.presence_penalty
        for token, bias in said.logit_bias.items():
            if 0 <= token < len(scores):
                scores[token] += bias
        if said.ignore_eos:
            scores[self._ends] = _NEVER
        if self._matcher is not None:
            self._matcher.bar(scores)
        if not np.isfinite(scores.max()):
            raise LLMProviderError(
                "no token may follow: the model's scores are no numbers, or all of them are barred",
                transient=False,
            )
        return scores

    def _likely(self, scores: Scores) -> NDArray[np.int64]:
        """The tokens that top_k and top_p leave, likeliest first."""
        import numpy as np

        said = self._sampling
        size = len(scores)
        most = said.top_k if said.top_k and 0 < said.top_k < size else size
        share = 1.0 if said.top_p is None else said.top_p
        if share >= 1 and most == size:
            return np.arange(size)
        enough = most if most < size else min(_LIKELIEST, size)
        while True:
            found = np.argpartition(scores, size - enough)[size - enough :]
            found = found[np.argsort(-scores[found], kind="stable")]
            if share >= 1:
                return found
            # Of those that top_k leaves, or of all.
            odds = _softmax(scores[found])
            if most == size:
                odds *= _sum(scores[found]) / _sum(scores, scores[found].max())
            kept = int(np.searchsorted(np.cumsum(odds, dtype=np.float64), share, "left")) + 1
            if kept <= enough or enough == size or most < size:
                return found[: max(1, kept)]
            enough = min(size, enough * 16)


def _softmax(scores: Any) -> Any:
    import numpy as np

    odds = np.exp(scores - scores.max(), dtype=np.float32)
    return odds / odds.sum(dtype=np.float64)


def _sum(scores: Any, highest: Any = None) -> float:
    import numpy as np

    highest = scores.max() if highest is None else highest
    return float(np.exp(scores - highest, dtype=np.float32).sum(dtype=np.float64))
