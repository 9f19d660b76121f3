"""What branch_and_join.yaml decides in Python."""

from __future__ import annotations

from typing import Any


def who_answers(seen: dict[str, Any]) -> str:
    """The path for a letter: angry ones are the head's."""
    return "head" if seen["mood"]["mood"] == "angry" else "clerk"


def for_the_head(seen: dict[str, Any]) -> dict[str, Any]:
    """What the head wants to know."""
    return {"subject": seen["subject"].strip().rstrip("."), "mood": seen["mood"]["mood"]}
