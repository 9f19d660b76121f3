"""Prompt formats by name, for models whose file has no chat template or a wrong one."""

from __future__ import annotations

from pathlib import Path

from headrace.contracts.errors import LLMInvalidRequestError

_HERE = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in _HERE.glob("*.jinja")))


def read_template(named: str | None) -> str | None:
    """The Jinja text of a template by name or path; ``None`` stays ``None``: the model's own."""
    if named is None:
        return None
    path = _HERE / f"{named}.jinja" if named in NAMES else Path(named).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as unreadable:
        raise LLMInvalidRequestError(
            f"prompt template {named!r} is neither a known name ({', '.join(NAMES)}) nor a file "
            "that can be read",
            param="engine.prompt_template",
        ) from unreadable
