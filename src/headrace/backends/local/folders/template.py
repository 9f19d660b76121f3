"""A model's chat template: found in its folder, and filled in inside a sandbox.

Templates are programs that come with the model. They run in the child, in jinja's sandbox, where
they reach nothing but what they are given; one that runs on is ended with the child.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from headrace.backends.local.folders.kinds import read_json
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

_MOST_TEMPLATE_BYTES = 1 << 20
# Marks where the answer goes on; no template changes it, and no caller writes it.
_HERE = "\x02headrace goes on here\x03"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


@frozen
class ChatTemplate:
    """The template ``text``, or ``with_tools`` where tools are offered and there is one for that.

    ``special`` are the special tokens that templates write by name.
    """

    text: str
    with_tools: str | None = None
    special: Mapping[str, str] = field(factory=dict)

    @cached_property
    def _environment(self) -> ImmutableSandboxedEnvironment:
        return _environment()

    def fill(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        more: Mapping[str, Any],
        *,
        continues: bool = False,
    ) -> str:
        """The prompt; where it ``continues``, up to the end of the last message's content.

        Raises LLMInvalidRequestError with what the template says against it.
        """
        from jinja2 import TemplateError

        if continues:
            *earlier, last = messages
            messages = [*earlier, {**last, "content": str(last["content"]) + _HERE}]
        text = self.with_tools if tools and self.with_tools is not None else self.text
        variables = {
            **self.special,
            "add_generation_prompt": not continues,
            **more,
            "messages": messages,
            "tools": tools,
            "documents": None,
        }
        try:
            said = self._environment.from_string(text).render(variables)
        except TemplateError as refusal:
            raise LLMInvalidRequestError(
                f"the model's chat template does not take this conversation: {refusal}",
                param="messages",
            ) from refusal
        except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as mistake:
            raise LLMInvalidRequestError(
                "the model's chat template fails on this conversation: "
                f"{type(mistake).__name__}: {mistake}",
                param="messages",
            ) from mistake
        if not continues:
            return said
        begun, here, _ = said.rpartition(_HERE)
        if not here:
            raise LLMInvalidRequestError(
                "the model's chat template leaves out the assistant's turn at the end, so it cannot "
                "be gone on with; end with another's turn",
                param="messages",
            )
        return begun


def find_template(folder: Path) -> ChatTemplate | None:
    """The chat template of the model in ``folder``; ``None`` where it has none.

    A file of its own goes before what the tokenizer's configuration says, as in transformers.
    """
    config = read_json(folder / "tokenizer_config.json", needed=False)
    special = dict.fromkeys(_SPECIAL, "") | _special_tokens(config)
    own = folder / "chat_template.jinja"
    if own.is_file():
        if own.stat().st_size > _MOST_TEMPLATE_BYTES:
            raise LLMInvalidRequestError(
                f"{own} is larger than {_MOST_TEMPLATE_BYTES} bytes", param="model"
            )
        return ChatTemplate(own.read_text(encoding="utf-8"), None, special)
    said = read_json(folder / "chat_template.json", needed=False).get("chat_template")
    said = config.get("chat_template") if said is None else said
    if isinstance(said, str):
        return ChatTemplate(said, None, special)
    if isinstance(said, list):
        named = {each.get("name"): each.get("template") for each in said if isinstance(each, dict)}
        usual = named.get("default")
        if isinstance(usual, str):
            return ChatTemplate(usual, named.get("tool_use"), special)
    return None


def _special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name in _SPECIAL:
        said = config.get(name)
        said = said.get("content") if isinstance(said, dict) else said
        if isinstance(said, str):
            found[name] = said
    return found


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers has it, for which templates are written."""
    from jinja2 import TemplateError, Undefined, UndefinedError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Asked(Undefined):
        """A name without a value: a template may ask whether it has one, and not write it down."""

        __slots__ = ()

        def __str__(self) -> str:
            raise UndefinedError(f"{self._undefined_name!r} is undefined")

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        # jinja's own writes HTML's entities, which no model was trained on.
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    def strftime_now(form: str) -> str:
        return datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, undefined=Asked, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment
