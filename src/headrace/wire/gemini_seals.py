"""Thoughts and the signatures over them, which Gemini puts on parts of any kind.

https://ai.google.dev/gemini-api/docs/thought-signatures. A signature goes back on the part that it
came on, so a piece of reasoning says by its ``part_id`` where that was. What another provider
sealed is packed into a signature for callers of this format, who hand it back unread.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Sequence

from attrs import evolve

from headrace.contracts.errors import LLMError
from headrace.contracts.messages import ReasoningPart
from headrace.wire.json import decode_reply, encode

OWN_SEALS = "gemini:"
"""How the ``part_id`` of a piece begins whose signature is Gemini's own."""

THOUGHT_SEAL = f"{OWN_SEALS}thought:"
"""How it begins where a thought itself is signed; its number in the turn follows."""

TEXT_SEAL = f"{OWN_SEALS}text"
_CALL_SEAL = f"{OWN_SEALS}call:"
_PACKED = b"headrace:"


def call_seal(number: int) -> str:
    """The ``part_id`` of a signature that came on a turn's call of that number."""
    return f"{_CALL_SEAL}{number}"


def moved(part: ReasoningPart, calls: int) -> ReasoningPart:
    """``part`` where ``calls`` come before those of its turn."""
    if not calls or part.part_id is None or not part.part_id.startswith(_CALL_SEAL):
        return part
    number = int(part.part_id.removeprefix(_CALL_SEAL))
    return evolve(part, part_id=call_seal(number + calls))


def is_signed_thought(part: ReasoningPart) -> bool:
    """Whether ``part`` is a thought with a signature of Gemini's own."""
    return part.signature is not None and (part.part_id or "").startswith(THOUGHT_SEAL)


class Thoughts:
    """Puts the thoughts and signatures of one turn together, in the order in which they come.

    ``text`` is all that was thought. ``parts`` are the pieces so far; they are worth keeping where
    one of them is sealed.
    """

    def __init__(self) -> None:
        self.parts: list[ReasoningPart] = []
        self._pending = ""
        self._texts: list[str] = []

    @property
    def text(self) -> str:
        return "".join(self._texts)

    def say(self, text: str) -> None:
        """A piece of a thought's text."""
        self._texts.append(text)
        self._pending += text

    def seal(self, signature: str, part_id: str) -> list[ReasoningPart]:
        """A signature, and the pieces that are complete by it."""
        packed = _unpacked(signature)
        pending, self._pending = self._pending, ""
        found: list[ReasoningPart] = []
        if packed is not None:
            # Its text came before it, unless that was not shown.
            if not pending:
                self._texts.append(packed.text)
            elif pending != packed.text:
                found = _alone(pending.removesuffix(packed.text))
            found.append(packed)
        elif part_id == THOUGHT_SEAL:
            place = f"{THOUGHT_SEAL}{len(self.parts)}"
            found = [ReasoningPart(text=pending, signature=signature, part_id=place)]
        else:
            found = [*_alone(pending), ReasoningPart(signature=signature, part_id=part_id)]
        self.parts += found
        return found

    def close(self) -> list[ReasoningPart]:
        """The piece that is left at the end of the turn, where one before it was sealed."""
        if not self.parts or not self._pending:
            return []
        found, self._pending = _alone(self._pending), ""
        self.parts += found
        return found


def packed_seal(part: ReasoningPart) -> str | None:
    """The signature that says what is sealed in ``part``; ``None`` where nothing is."""
    if part.part_id is not None and part.part_id.startswith(OWN_SEALS):
        return part.signature
    if part.signature is None and part.encrypted is None:
        return None
    told = {
        "text": part.text,
        "signature": part.signature,
        "encrypted": part.encrypted,
        "id": part.part_id,
    }
    return b64encode(_PACKED + encode(told)).decode()


def own_seals(parts: Sequence[ReasoningPart]) -> dict[str, str]:
    """Gemini's own signatures among ``parts`` that do not belong to a thought, by their place."""
    return {
        part.part_id: part.signature
        for part in parts
        if part.signature is not None
        and part.part_id is not None
        and part.part_id.startswith(OWN_SEALS)
        and not is_signed_thought(part)
    }


def _alone(text: str) -> list[ReasoningPart]:
    return [ReasoningPart(text=text)] if text else []


def _unpacked(signature: str) -> ReasoningPart | None:
    """The piece of another provider that was packed into ``signature``."""
    # Google's own client writes what it read in the other alphabet, and may leave out the padding.
    usual = signature.replace("-", "+").replace("_", "/")
    try:
        data = b64decode(usual + "=" * (-len(usual) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None
    if not data.startswith(_PACKED):
        return None
    try:
        found = decode_reply(data[len(_PACKED) :])
    except LLMError:
        return None
    if not isinstance(found, dict):
        return None
    told = [found.get(name) for name in ("text", "signature", "encrypted", "id")]
    said, sealed, encrypted, own_id = (each if isinstance(each, str) else None for each in told)
    return ReasoningPart(text=said or "", signature=sealed, encrypted=encrypted, part_id=own_id)
