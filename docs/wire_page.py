"""The page that says what each wire format cannot carry, made from the tables that the codecs keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from textwrap import wrap

from attrs import frozen
from wire_paths import paths_section

from headrace.backends.providers import PROVIDERS
from headrace.backends.row import FORMATS, codec
from headrace.wire.losses import what_is_done

OPENING = """\
# Wire formats

What callers send and what backends understand are formats of several makers. Each is one module of
`headrace.wire`, which reads and writes requests, answers and streams; the client and the gateway use
the same ones. A caller of any format here can be answered by a backend of any other. What a format has
no place for stands in a table in its module (`LOSSES`), from which this page is made; one rich
conversation goes through all pairs in the tests, and a loss that is not in a table fails them.

What is done about a loss is one of four things:

- **refused**: the request gets an error that names the setting, in the caller's format.
- **left out, and named**: the answer comes, with the header `x-headrace-dropped` (in the Python client
  `dropped`), which lists what the backend was not told.
- **said otherwise**: the meaning arrives in other words, which the reason tells.
- **not told**: the answer has something that the caller's format has no field for. It is still in the
  [record](records.md) of the call, as far as records have it.

Fields of one maker's own (`OWN_FIELDS` in its module: a caching key, a service tier) are left out for
backends of other makers, and named. What a single provider refuses within its format stands in its
row; see [providers](providers.md).
"""


@frozen
class Named:
    """How the page calls a codec; ``path`` is where the gateway has its face."""

    title: str
    path: str | None


NAMES = {
    "headrace.wire.openai_chat": Named("Chat Completions", "/v1/chat/completions"),
    "headrace.wire.openai_responses": Named("Responses", "/v1/responses"),
    "headrace.wire.openai_completions": Named("Completions", "/v1/completions"),
    "headrace.wire.anthropic": Named("Anthropic's Messages", "/v1/messages"),
    "headrace.wire.gemini": Named("Gemini", "/v1beta/models/{model}:generateContent"),
    "headrace.wire.ollama": Named("Ollama's chats", "/api/chat"),
    "headrace.wire.ollama_generate": Named("Ollama's texts", "/api/generate"),
    "headrace.wire.tgi": Named("TGI's texts", "/generate"),
    "headrace.wire.kserve_generate": Named("Triton's texts", "/v2/models/{model}/generate"),
    "headrace.wire.opea": Named("OPEA's services", None),
}
"""By module. A further codec is a line here."""


def wire_page(note: str) -> str:
    """The whole page."""
    sections: tuple[Callable[[], Iterator[str]], ...] = (_formats, _losses, _pairs)
    lines = [line for section in sections for line in (*section(), "")] + [paths_section()]
    first, _, rest = OPENING.partition("\n\n")
    return "\n".join([first, "", note, "", rest.rstrip(), "", *lines]).rstrip() + "\n"


def _formats() -> Iterator[str]:
    yield "## The formats"
    yield ""
    yield "| format | asked of the gateway at | `format` of a provider's row | providers with it |"
    yield "|---|---|---|---|"
    seen: set[str] = set()
    for name, row in FORMATS.items():
        providers = ", ".join(f"`{p}`" for p, each in PROVIDERS.items() if each.format == name)
        for module in (row.chat, row.completions):
            if module not in NAMES or module in seen or not providers:
                continue
            seen.add(module)
            named = NAMES[module]
            face = f"`{named.path}`" if named.path else "no face"
            yield f"| {named.title} | {face} | `{name}` | {providers} |"


def _losses() -> Iterator[str]:
    yield "## What each format has no place for"
    for module, named in NAMES.items():
        yield ""
        yield f"### {named.title}"
        yield ""
        yield "| what | done about it | why, or how |"
        yield "|---|---|---|"
        for key, reason in codec(module).LOSSES.items():
            done = what_is_done(key, reason)
            why = reason.removeprefix("refused").removeprefix("left out").removeprefix(": ").strip()
            yield f"| `{key}` | {done} | {why} |"


def _pairs() -> Iterator[str]:
    yield "## Pair by pair"
    yield ""
    yield from wrap(
        "For a caller of the first format and a backend of the second: what the caller can say and "
        "the backend cannot be told, and what the backend can tell and the caller cannot be. What "
        "neither format has is left out of the list.",
        96,
    )
    for face, backend in product(NAMES, NAMES):
        if face == backend:
            continue
        yield ""
        yield f"### {NAMES[face].title} → {NAMES[backend].title}"
        yield ""
        yield from _pair(face, backend)


def _pair(face: str, backend: str) -> Iterator[str]:
    here, there = codec(face).LOSSES, codec(backend).LOSSES
    if ("messages" in here) is not ("messages" in there):
        asked = "a prompt" if "messages" in here else "messages"
        yield (
            f"Refused: {asked} cannot be asked of a backend of that format. (A provider may have "
            "both.)"
        )
        return
    found: dict[str, list[str]] = {}
    for key, reason in there.items():
        if not key.startswith("answer.") and not _covered(key, here):
            found.setdefault(what_is_done(key, reason), []).append(key)
    for key, reason in here.items():
        if key.startswith("answer.") and not _covered(key, there):
            found.setdefault(what_is_done(key, reason), []).append(key)
    if not found:
        yield "Nothing is lost."
    for done, keys in found.items():
        listed = ", ".join(f"`{key}`" for key in keys)
        yield from wrap(f"- {done}: {listed}", 96, subsequent_indent="  ", break_on_hyphens=False)


def _covered(key: str, losses: object) -> bool:
    """Whether the table has ``key`` or what it is a part of."""
    while key:
        if key in losses:  # type: ignore[operator]
            return True
        key = key.rpartition(".")[0]
    return False
