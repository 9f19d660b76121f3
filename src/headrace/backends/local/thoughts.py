"""A model's reasoning told apart from its answer, by the marks that it writes around it."""

from __future__ import annotations

from attrs import frozen

OPENS, CLOSES = "<think>", "</think>"


@frozen
class Said:
    """What a piece of text adds to the reasoning and to the answer."""

    reasoning: str = ""
    text: str = ""


class Thoughts:
    """Takes an answer's text in pieces. One that is ``begun`` starts inside of its reasoning, where
    the prompt ended with the mark.

    Reasoning stands at the beginning or nowhere: marks further on are text. The line breaks between
    the marks and what they part belong to neither.
    """

    def __init__(self, *, begun: bool) -> None:
        self._inside, self._after = begun, False
        self._is_first = True
        """Whether what comes next is the first of its part, of which leading space is left out."""
        self._held = ""

    def feed(self, text: str) -> Said:
        """What is settled now that ``text`` has come."""
        if self._after and not self._is_first:
            return Said(text=text)
        self._held += text
        reasoning = ""
        if not self._inside and not self._after:
            begun = self._held.lstrip()
            if len(begun) < len(OPENS) and OPENS.startswith(begun):
                return Said()
            if begun.startswith(OPENS):
                self._inside, self._held = True, begun[len(OPENS) :]
            else:
                self._after, self._is_first = True, False
        if self._inside:
            reasoning = self._thought()
        if not self._after:
            return Said(reasoning=reasoning)
        said, self._held = self._held, ""
        if self._is_first:
            said = said.lstrip()
            self._is_first = not said
        return Said(reasoning=reasoning, text=said)

    def close(self) -> Said:
        """What was held back, once nothing follows."""
        rest, self._held = self._held, ""
        if self._inside:
            return Said(reasoning=rest.rstrip())
        return Said(text=rest)

    def _thought(self) -> str:
        """The reasoning that is settled; what may be its closing mark, or the space before it, is
        held back."""
        if self._is_first:
            self._held = self._held.lstrip()
            self._is_first = not self._held
        thought, mark, rest = self._held.partition(CLOSES)
        if mark:
            self._inside, self._after, self._is_first = False, True, True
            self._held = rest
            return thought.rstrip()
        keep = next(
            (size for size in range(len(CLOSES) - 1, 0, -1) if thought.endswith(CLOSES[:size])), 0
        )
        settled = thought[: len(thought) - keep].rstrip()
        self._held = thought[len(settled) :]
        return settled
