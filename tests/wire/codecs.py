"""Every codec of chats and text completions, and the provider that stands for its format.

They come from the table of formats, so that a further format is in every test of all pairs.
"""

from __future__ import annotations

from types import ModuleType

from headrace.backends.providers import PROVIDERS
from headrace.backends.row import FORMATS, Provider, codec

CODECS: dict[str, ModuleType] = {
    module.rpartition(".")[2]: codec(module)
    for row in FORMATS.values()
    for module in (row.chat, row.completions)
    # There are formats with a chat's module that says nothing but errors.
    if module is not None and hasattr(codec(module), "stream_writer")
}


def takes_prompts(wire: ModuleType) -> bool:
    """Whether the format asks for the continuation of a text, not for the next turn of a chat."""
    return "messages" in wire.LOSSES


def row_of(wire: ModuleType) -> Provider:
    """The provider of that format that refuses least."""
    of_format = [
        row
        for row in PROVIDERS.values()
        if wire in (row.chat, row.completions) and _asks(row, wire) is not None
    ]
    return min(of_format, key=lambda row: (len(row.unsupported), row.options is not None, row.name))


def _asks(row: Provider, wire: ModuleType) -> str | None:
    return row.completions_path if takes_prompts(wire) else row.chat_path
