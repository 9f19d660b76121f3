"""What comes of OpenVINO's tokens on our side of the socket: answers, each read into its deltas."""

from __future__ import annotations

from typing import TypeAlias

from attrs import define, field

from headrace.backends.local.inbox import Inbox
from headrace.backends.local.words import Words
from headrace.contracts.errors import LLMProviderError
from headrace.contracts.responses import LLMDelta, TokenLogprob

PROVIDER = "openvino"
_MOST_KNOWN = 8192

Output: TypeAlias = tuple[int, list[int], list[float], str | None]
"""As in ``openvino_frames.Step``."""


@define(eq=False)
class Answer:
    """One answer under way. ``ended``: the engine computes it no more; ``is_over``: we read it no
    more, which a stop string may cause first.

    ``known`` are deltas of single tokens whose text depends on nothing else, by their token: all
    answers share them, for making one anew takes longer than all the rest.
    """

    answer_id: int
    index: int
    inbox: Inbox[tuple[Answer, Output]]
    words: Words
    known: dict[int, LLMDelta]
    tokens: int = 0
    begun: bool = False
    ended: bool = False
    is_over: bool = field(default=False)
    _alone: bool = field(default=False, init=False)
    """Whether the next token's text is its own."""

    def __attrs_post_init__(self) -> None:
        self._alone = self.index == 0 and self.words.owes_nothing

    def read(self, output: Output) -> list[LLMDelta]:
        """The deltas that ``output`` makes."""
        _, tokens, logprobs, reason = output
        token = None
        if self._alone and reason is None and len(tokens) == 1 and not logprobs:
            token = tokens[0]
            known = self.known.get(token)
            if known is not None:
                self.tokens += 1
                return [known]
        deltas = self._read(tokens, logprobs, reason)
        self._alone = self.index == 0 and not self.is_over and self.words.owes_nothing
        if token is not None and self._alone and deltas and len(self.known) < _MOST_KNOWN:
            self.known[token] = deltas[0]
        return deltas

    def _read(self, tokens: list[int], logprobs: list[float], reason: str | None) -> list[LLMDelta]:
        if self.is_over:
            return []
        if reason == "ignored":
            raise LLMProviderError(
                "OpenVINO gave the request up: its cache had no room for it", provider=PROVIDER
            )
        words = self.words
        text = ""
        for token in tokens:
            self.tokens += 1
            text += words.feed(token)
            if words.stopped_by is not None:
                break
        if reason is not None and words.stopped_by is None:
            text += words.close()
        said = tuple(
            _token_logprob(words.piece(token), logprob)
            for token, logprob in zip(tokens, logprobs, strict=False)
            if words.piece(token)
        )
        deltas = []
        if text or said:
            deltas.append(LLMDelta(text_delta=text, logprobs=said or None, index=self.index))
        if words.stopped_by is not None:
            reason = "stop"
        if reason is not None:
            self.is_over = True
            deltas.append(
                LLMDelta(
                    finish_reason="length" if reason == "length" else "stop",
                    raw_finish_reason=reason,
                    index=self.index,
                    stop_sequence=words.stopped_by,
                )
            )
        return deltas


def _token_logprob(piece: bytes, logprob: float) -> TokenLogprob:
    return TokenLogprob(token=piece.decode(errors="replace"), logprob=logprob, token_bytes=piece)
