"""Texts written together are those written alone, whoever joins and leaves meanwhile."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.folders.counting import END, LETTERS, Alphabet, Counting, counting, whole_text
from headrace.backends.local.folders.frames import Ask, Output, Sampling, Text
from headrace.backends.local.folders.work import Writing
from headrace.contracts.errors import LLMContextLengthError, LLMInvalidRequestError


class Desk:
    """Asks for texts, and keeps what comes of them."""

    def __init__(self, *, slots: int = 4, chunk: int = 8, context: int = 200, joins: bool = True):
        self.decoder = Counting(joins=joins)
        self.outputs: dict[tuple[int, int], list[Output]] = defaultdict(list)
        self.writing = Writing(
            counting(self.decoder, context),
            slots=slots,
            chunk=chunk,
            brought=self._brought,
            failed=lambda call, error: self.failures.append((call.call_id, error)),
        )
        self.calls = {}
        self.failures = []

    def _brought(self, owner: object, output: Output) -> None:
        assert owner == "me"
        self.outputs[output.call_id, output.place].append(output)

    def ask(self, number: int, prompt: str, most: int | None = 30, **settings):
        stop = settings.pop("stop", [])
        answers = settings.pop("answers", 1)
        asked = Ask(number, Text(prompt), Sampling(**settings), stop, most, answers)
        self.calls[number] = self.writing.add("me", asked, Alphabet().ids(prompt, special=True))

    def run(self) -> None:
        while self.writing.has_work:
            self.writing.step()

    def text(self, number: int, place: int = 0) -> str:
        return "".join(output.text for output in self.outputs[number, place])

    def end(self, number: int, place: int = 0) -> str | None:
        return self.outputs[number, place][-1].reason


PROMPTS = st.text(LETTERS, min_size=1, max_size=30)


@given(
    prompts=st.lists(st.tuples(PROMPTS, st.integers(0, 6), st.integers(1, 30)), max_size=9),
    slots=st.integers(1, 5),
    chunk=st.integers(1, 9),
    joins=st.booleans(),
)
def test_whoever_joins_or_leaves_every_text_is_what_it_is_alone(prompts, slots, chunk, joins):
    desk = Desk(slots=slots, chunk=chunk, joins=joins)
    for number, (prompt, steps, most) in enumerate(prompts):
        desk.ask(number, prompt, most)
        for _ in range(steps):
            desk.writing.step()
    desk.run()
    for number, (prompt, _, most) in enumerate(prompts):
        assert (desk.text(number), desk.end(number)) == whole_text(prompt, most)
    assert max(desk.decoder.steps, default=0) <= (slots if joins else 1)
    assert max(desk.decoder.pieces, default=0) <= chunk
    assert (desk.writing.running, desk.writing.waiting) == (0, 0)


@given(
    prompts=st.lists(st.tuples(PROMPTS, st.booleans()), min_size=2, max_size=8),
    after=st.integers(0, 12),
)
def test_whoever_leaves_takes_no_place_from_the_next_step_on(prompts, after):
    desk = Desk()
    for number, (prompt, _) in enumerate(prompts):
        desk.ask(number, prompt)
    for _ in range(after):
        desk.writing.step()
    left = {number for number, (_, leaves) in enumerate(prompts) if leaves}
    said = {number: desk.text(number) for number in left}
    for number in left:
        desk.writing.cancel(desk.calls[number])
    desk.run()
    for number, (prompt, _) in enumerate(prompts):
        if number in left:
            assert desk.text(number) == said[number]
        else:
            assert (desk.text(number), desk.end(number)) == whole_text(prompt, 30)


def test_several_answers_to_one_prompt_are_read_once_and_written_together():
    desk = Desk(slots=4)
    desk.ask(1, "tell me", 12, answers=3)
    desk.run()
    assert desk.decoder.pieces == [7]
    expected = whole_text("tell me", 12)
    assert {(desk.text(1, place), desk.end(1, place)) for place in range(3)} == {expected}


def test_a_text_ends_at_its_stop_string_which_is_not_told():
    desk = Desk()
    prompt = next(p for p in LETTERS if len(whole_text(p, 30)[0]) > 8)
    whole, _ = whole_text(prompt, 30)
    stop = whole[3:5]
    desk.ask(1, prompt, stop=[stop, "never there"])
    desk.run()
    assert desk.text(1) == whole[: whole.index(stop)]
    assert desk.outputs[1, 0][-1].stopped_by == stop
    assert desk.end(1) == "stop"


def test_what_may_not_end_goes_on_to_its_last_token():
    desk = Desk()
    desk.ask(1, "zz", 60, ignore_eos=True)
    desk.run()
    assert desk.end(1) == "length"
    assert desk.outputs[1, 0][-1].tokens == 60


def test_a_prompt_that_leaves_no_room_is_refused_and_one_that_leaves_little_gets_that():
    desk = Desk(context=20)
    with pytest.raises(LLMContextLengthError, match="20 tokens"):
        desk.ask(1, "a" * 20)
    desk.ask(2, "a" * 17, None, ignore_eos=True)
    desk.run()
    assert (desk.outputs[2, 0][-1].tokens, desk.end(2)) == (3, "length")
    with pytest.raises(LLMInvalidRequestError, match="empty"):
        desk.ask(3, "")
    with pytest.raises(LLMInvalidRequestError, match=f"token id {END + 1}"):
        desk.writing.add("me", Ask(4, Text(""), Sampling(), []), [0, END + 1])


def test_no_prompt_keeps_the_others_from_their_next_token():
    desk = Desk(chunk=4)
    desk.ask(1, "short", 20, ignore_eos=True)
    desk.writing.step()
    desk.writing.step()
    desk.writing.step()
    desk.ask(2, "a very long prompt that is read in pieces", 5)
    before = len(desk.outputs[1, 0])
    for step in range(1, 6):
        desk.writing.step()
        assert len(desk.outputs[1, 0]) == before + step


def test_one_that_cannot_go_on_fails_alone():
    desk = Desk()
    desk.ask(1, "one", 20)
    desk.ask(2, "two", 20, logit_bias={token: float("-inf") for token in range(END + 1)})
    desk.run()
    assert desk.text(1) == whole_text("one", 20)[0]
    ((number, failure),) = desk.failures
    assert number == 2
    assert "no token may follow" in str(failure)
