"""The calls of a child, computed step by step: prompts read in pieces, texts written together.

A step reads one piece of one prompt and writes one token of every text under way. So whoever comes
joins those who are there, nobody waits long for a next token, and who leaves is left out of the
next step.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from msgspec import structs

from headrace.backends.local.folders.computing import Loaded
from headrace.backends.local.folders.frames import Ask, Logprob, Output, Sampling
from headrace.backends.local.folders.grammar import Grammars
from headrace.backends.local.folders.sampling import Sampler
from headrace.backends.local.folders.text import Reading
from headrace.contracts.errors import (
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
)


@define(eq=False)
class Call:
    """One call for text: its prompt, and the answers to it that are not over."""

    owner: Any
    call_id: int
    prompt: list[int]
    answers: list[Answer]
    cancelled: bool = False
    past: Any = None
    read: int = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return not self.answers


@define(eq=False)
class Answer:
    """One answer under way."""

    call: Call
    place: int
    sampler: Sampler
    reading: Reading
    most: int
    tokens: int = 0
    last: int = 0
    held: list[Logprob] = field(factory=list)
    """Log probabilities of tokens whose text is not settled yet."""
    length: int = 0
    """How many tokens the model has seen of it, its prompt included."""


@define(eq=False)
class _Batch:
    """Texts that are written together."""

    past: Any
    rows: list[Answer] = field(factory=list)


class Writing:
    """Everything that is being written.

    ``brought`` is called with each output and its call's owner, ``failed`` with a call that comes to
    nothing while it is being written.
    """

    def __init__(
        self,
        loaded: Loaded,
        *,
        slots: int,
        chunk: int,
        brought: Callable[[Any, Output], None],
        failed: Callable[[Call, LLMError], None],
    ) -> None:
        assert loaded.decoder is not None
        self._loaded, self._decoder = loaded, loaded.decoder
        self._slots, self._chunk = slots, chunk
        self._brought, self._failed = brought, failed
        self._grammars = Grammars(loaded.tokenizer, loaded.ends, self._decoder.width)
        self._waiting: deque[Call] = deque()
        self._reading: Call | None = None
        self._batches: list[_Batch] = []

    @property
    def running(self) -> int:
        """The answers that have a place."""
        reading = 0 if self._reading is None else len(self._reading.answers)
        return reading + sum(len(batch.rows) for batch in self._batches)

    @property
    def waiting(self) -> int:
        """The answers that wait for one."""
        return sum(len(call.answers) for call in self._waiting)

    @property
    def has_work(self) -> bool:
        """Whether there is anything to compute."""
        return bool(self._waiting or self._reading or self._batches)

    def add(self, owner: Any, asked: Ask, prompt: list[int]) -> Call:
        """Have ``asked`` answered; raises an LLMError where it cannot be."""
        room = self._room(prompt)
        most = room if asked.max_tokens is None else min(room, asked.max_tokens)
        sampling = self._with_defaults(asked.sampling)
        call = Call(owner, asked.call_id, prompt, [])
        for place in range(asked.answers):
            matcher = None if sampling.grammar is None else self._grammars.matcher(sampling.grammar)
            sampler = Sampler(
                sampling,
                prompt,
                self._loaded.ends,
                self._loaded.tokenizer.piece,
                place=place,
                matcher=matcher,
            )
            reading = Reading(self._loaded.tokenizer, asked.stop)
            call.answers.append(Answer(call, place, sampler, reading, most))
        self._waiting.append(call)
        return call

    def cancel(self, call: Call) -> None:
        """Write no more of it; from the next step on it takes no place."""
        call.cancelled = True
        call.answers.clear()
        if self._reading is call:
            self._reading = None
        if call in self._waiting:
            self._waiting.remove(call)

    def step(self) -> None:
        """Compute for everybody who is there."""
        self._clear()
        if self._batches:
            for batch in self._batches:
                self._write(batch)
            self._clear()
        self._admit()
        if self._reading is not None:
            self._read(self._reading)

    def _admit(self) -> None:
        if self._reading is not None or not self._waiting:
            return
        running = self.running
        if running and running + len(self._waiting[0].answers) > self._slots:
            return
        self._reading = self._waiting.popleft()

    def _read(self, call: Call) -> None:
        piece = call.prompt[call.read : call.read + self._chunk]
        call.past, scores = self._decoder.read(call.past, piece)
        call.read += len(piece)
        if call.read < len(call.prompt):
            return
        self._reading = None
        call.answers = [answer for answer in call.answers if self._begin(answer, scores)]
        past, call.past = call.past, None
        for place, answer in enumerate(call.answers):
            is_last = place == len(call.answers) - 1
            self._join(_Batch(past if is_last else self._decoder.copy(past), [answer]))

    def _begin(self, answer: Answer, scores: Any) -> bool:
        answer.length = len(answer.call.prompt)
        return self._chosen(answer, scores, 0, None)

    def _join(self, new: _Batch) -> None:
        if self._batches and self._decoder.can_join(new.past):
            there = self._batches[0]
            there.past = self._decoder.join([there.past, new.past])
            there.rows += new.rows
        else:
            self._batches.append(new)

    def _write(self, batch: _Batch) -> None:
        decoder, rows = self._decoder, batch.rows
        batch.past, scores = decoder.write(
            batch.past, [row.last for row in rows], [row.length for row in rows]
        )
        likeliest = decoder.likeliest(scores) if any(row.sampler.is_plain for row in rows) else None
        for place, row in enumerate(rows):
            row.length += 1
            chosen = None if likeliest is None else likeliest[place]
            if row.call.cancelled or self._chosen(row, scores, place, chosen):
                continue
            if row in row.call.answers:
                row.call.answers.remove(row)

    def _chosen(self, answer: Answer, scores: Any, row: int, likeliest: int | None) -> bool:
        """Choose the next token of ``answer`` and tell of it; whether another one follows."""
        sampler = answer.sampler
        if likeliest is not None and sampler.is_plain:
            token = likeliest
        else:
            own = self._decoder.row(scores, row)
            try:
                token = sampler.choose(own)
            except LLMError as failure:
                self.cancel(answer.call)
                self._failed(answer.call, failure)
                return False
            if sampler.tells and token not in self._loaded.ends:
                answer.held.append(sampler.told(own, token))
        sampler.take(token)
        answer.tokens += 1
        answer.last = token
        return self._told(answer, token)

    def _told(self, answer: Answer, token: int) -> bool:
        """Tell what ``token`` adds to ``answer``; whether another one follows."""
        reading, reason, text = answer.reading, None, ""
        if token in self._loaded.ends:
            reason = "stop"
        else:
            text = reading.feed(token)
            if reading.stopped_by is not None:
                reason = "stop"
            elif answer.tokens >= answer.most:
                reason = "length"
        if reason is not None and reading.stopped_by is None:
            text += reading.close()
        if text or reason:
            # Those of a stop string's own tokens are not told, as it is not.
            logprobs = answer.held if text or reading.stopped_by is None else []
            answer.held = []
            output = Output(
                call_id=answer.call.call_id,
                place=answer.place,
                text=text,
                tokens=answer.tokens,
                logprobs=logprobs,
                reason=reason,
                stopped_by=reading.stopped_by,
            )
            self._brought(answer.call.owner, output)
        return reason is None

    def _clear(self) -> None:
        """Leave out what is over."""
        left = []
        for batch in self._batches:
            rows = [i for i, row in enumerate(batch.rows) if row in row.call.answers]
            if not rows:
                continue
            if len(rows) < len(batch.rows):
                batch.rows = [batch.rows[i] for i in rows]
                longest = max(row.length for row in batch.rows)
                batch.past = self._decoder.keep(batch.past, rows, longest)
            left.append(batch)
        self._batches = left

    def _room(self, prompt: Sequence[int]) -> int:
        context, width = self._loaded.context_tokens, self._decoder.width
        wrong = next((each for each in prompt if not 0 <= each < width), None)
        if wrong is not None:
            raise LLMInvalidRequestError(
                f"the prompt holds the token id {wrong}; this model's are 0 to {width - 1}",
                param="prompt",
                code="invalid_value",
            )
        if not prompt:
            raise LLMInvalidRequestError(
                "the prompt is empty, and this model has no token that begins a text; write "
                "something",
                param="prompt",
            )
        if len(prompt) >= context:
            raise LLMContextLengthError(
                f"the prompt has {len(prompt)} tokens, but the context of this model, prompt and "
                f"answer together, is {context} tokens",
                param="messages",
            )
        return context - len(prompt)

    def _with_defaults(self, said: Sampling) -> Sampling:
        usual = {
            name: value
            for name, value in self._loaded.defaults.items()
            if getattr(said, name) is None
        }
        return structs.replace(said, **usual)
