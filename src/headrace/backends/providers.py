"""The table of providers: how each is reached. Adding one is adding a row.

``row`` has what a row says, ``rows`` the rows; here are the engine in the box and the look-ups.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from attrs import evolve

from headrace.backends.row import FORMATS, Format, Provider, Structured
from headrace.backends.rows import ENGINE, HOSTED, SELF_HOSTED
from headrace.contracts.convert import from_plain, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire.openai_params import LLAMA_CPP, OWN_FIELDS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = [
    "FORMATS",
    "LLAMA_CPP_SERVER",
    "PROVIDERS",
    "Format",
    "Provider",
    "Structured",
    "fill_rows",
    "provider",
    "providers",
    "read_providers",
    "register_provider",
    "split_model",
    "usual_base_url",
]

# https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
_LLAMA_CPP_OPTIONS = frozenset(
    [
        "add_generation_prompt",
        "adaptive_decay",
        "adaptive_target",
        "cache_prompt",
        "chat_template_kwargs",
        "continue_final_message",
        "dry_allowed_length",
        "dry_base",
        "dry_multiplier",
        "dry_penalty_last_n",
        "dry_sequence_breakers",
        "dynatemp_exponent",
        "dynatemp_range",
        "grammar",
        "grammar_lazy",
        "grammar_triggers",
        "id_slot",
        "ignore_eos",
        "json_schema",
        "lora",
        "mirostat",
        "mirostat_eta",
        "mirostat_tau",
        "min_keep",
        "n_cache_reuse",
        "n_discard",
        "n_indent",
        "n_keep",
        "n_predict",
        "n_probs",
        "parse_tool_calls",
        "post_sampling_probs",
        "preserved_tokens",
        "reasoning_budget_tokens",
        "reasoning_format",
        "repeat_last_n",
        "response_fields",
        "return_progress",
        "return_tokens",
        "samplers",
        "t_max_predict_ms",
        "timings_per_token",
        "top_n_sigma",
        "typical_p",
        "xtc_probability",
        "xtc_threshold",
    ]
)

LLAMA_CPP_SERVER = Provider(
    name="llama.cpp",
    # Its other paths (tokenise, templates) do not lie under /v1.
    chat_path="/v1/chat/completions",
    completions_path="/v1/completions",
    embeddings_path="/v1/embeddings",
    rerank_path="/v1/rerank",
    models_path="/v1/models",
    metrics_path="/metrics",
    dialect=LLAMA_CPP,
    unsupported=frozenset({"best_of"}),
    options=_LLAMA_CPP_OPTIONS,
    # Text to arrive at after the completion: what comes without it is still a continuation.
    ignored=OWN_FIELDS | {"suffix"},
    echoes=False,
    asked_whole=False,
    streams_logprobs_with_tools=False,
    logprobs_alone=False,
    structured=ENGINE,
)

# The same server as a user starts it, with the base that is usual elsewhere. A key is asked for
# where it was started with --api-key or LLAMA_API_KEY.
_LLAMA_SERVER = evolve(
    LLAMA_CPP_SERVER,
    name="llama-server",
    base_url="http://127.0.0.1:8080/v1",
    base_url_env=("LLAMA_SERVER_BASE_URL",),
    key_env=("LLAMA_API_KEY",),
    chat_path="/chat/completions",
    completions_path="/completions",
    embeddings_path="/embeddings",
    rerank_path="/rerank",
    models_path="/models",
)

PROVIDERS: dict[str, Provider] = {row.name: row for row in (*HOSTED, *SELF_HOSTED, _LLAMA_SERVER)}
"""Every row by its name, those registered and installed by others included once asked for."""

log = logging.getLogger(__name__)

_ENTRY_POINTS = "headrace.providers"
_asked_installed = False


def provider(name: str) -> Provider:
    """The row of that name; raises LLMInvalidRequestError that lists the known ones."""
    row = PROVIDERS.get(name) or providers().get(name)
    if row is None:
        raise LLMInvalidRequestError(f"unknown provider {name!r}; known: {_known()}")
    return row


def providers() -> dict[str, Provider]:
    """All rows by name, with those that installed packages offer.

    A package offers a row, or a function that gives one or several, as an entry point of the group
    ``headrace.providers``. They are looked for once; one of ours is not replaced by them.
    """
    global _asked_installed  # noqa: PLW0603 - installed packages do not change while we run
    if not _asked_installed:
        _asked_installed = True
        for row in _installed():
            PROVIDERS.setdefault(row.name, row)
    return PROVIDERS


def usual_base_url(row: Provider, environment: Mapping[str, str] | None = None) -> str | None:
    """Where ``row`` is reached if nothing else is said: its variables go before its own base."""
    environment = os.environ if environment is None else environment
    named = (environment.get(name, "").strip() for name in row.base_url_env)
    return next((url.rstrip("/") for url in named if url), row.base_url)


def register_provider(row: Provider, *, replace: bool = False) -> Provider:
    """Add ``row`` to the table; a name that is taken needs ``replace``."""
    if not replace and row.name in PROVIDERS:
        raise LLMInvalidRequestError(
            f"there is a provider {row.name!r} already; say replace=True, or choose another name"
        )
    PROVIDERS[row.name] = row
    return row


def read_providers(text: str) -> tuple[Provider, ...]:
    """The rows in ``text``: a YAML list of mappings, each with a row's fields.

    ``like`` names a row whose fields are used where a mapping has none. Nothing is registered.
    """
    from headrace.contracts._yaml import read_yaml

    return from_plain(fill_rows(read_yaml(text), "$"), tuple[Provider, ...])


def fill_rows(listed: object, path: str) -> list[dict[str, object]]:
    """The mappings ``listed`` at ``path``, each with what the row that it is ``like`` says.

    They are then for ``from_plain`` to read. Raises LLMInvalidRequestError where they are no list
    of mappings, where two have one name, and where ``like`` names no row that is known, or further
    up in the list.
    """
    if not isinstance(listed, list) or not all(isinstance(each, dict) for each in listed):
        raise LLMInvalidRequestError(
            f"providers are a list of mappings @ {path}, each with name and base_url, such as\n"
            "- name: corp\n  base_url: https://llm.corp.example/v1\n  key_env: [CORP_LLM_KEY]",
            param="providers",
        )
    filled: list[dict[str, object]] = []
    named: dict[str, dict[str, object]] = {}
    for i, entry in enumerate(listed):
        row = {**_lent(entry.get("like"), named, f"{path}[{i}].like"), **entry}
        row.pop("like", None)
        name = row.get("name")
        if isinstance(name, str):
            if name in named:
                raise LLMInvalidRequestError(
                    f"there are two providers {name!r}; give one another name @ {path}[{i}].name",
                    param="name",
                )
            named[name] = row
        filled.append(row)
    return filled


def _lent(like: object, named: Mapping[str, dict[str, object]], path: str) -> Mapping[str, object]:
    if like is None:
        return {}
    if str(like) in named:
        return _but_name(named[str(like)])
    try:
        plain = to_plain(provider(str(like)))
    except LLMInvalidRequestError as error:
        raise LLMInvalidRequestError(f"{error} @ {path}", param="like") from error
    assert isinstance(plain, dict)
    return _but_name(plain)


def _but_name(row: Mapping[str, object]) -> Mapping[str, object]:
    return {field: value for field, value in row.items() if field != "name"}


def split_model(name: str, default: str | None = None) -> tuple[Provider, str]:
    """The row and the provider's own name for the model that ``provider/model`` says.

    A model's name may hold slashes itself (``openrouter/openai/gpt-4o``): the first one counts.
    ``default`` is the provider of a name whose first part is none; without it, such a name is
    refused.
    """
    prefix, slash, model = name.partition("/")
    row = (PROVIDERS.get(prefix) or providers().get(prefix)) if slash else None
    if row is not None:
        if not model:
            raise LLMInvalidRequestError(
                f"model {name!r} names no model behind its provider; expected {prefix}/<model>",
                param="model",
            )
        return row, model
    if default is not None and name:
        return provider(default), name
    raise LLMInvalidRequestError(
        f"model {name!r} has no known provider before its first slash; expected provider/model "
        f"with one of: {_known()}",
        param="model",
    )


def _known() -> str:
    return ", ".join(sorted(providers()))


def _installed() -> list[Provider]:
    from importlib.metadata import entry_points

    rows: list[Provider] = []
    for point in entry_points(group=_ENTRY_POINTS):
        try:
            offered = point.load()
            offered = offered() if callable(offered) else offered
            several = [offered] if isinstance(offered, Provider) else list(offered)
        except Exception as error:  # noqa: BLE001 - it is another's code; ours works without it
            log.warning("provider %r of %s left out: %r", point.name, _package(point), error)
            continue
        for row in several:
            if isinstance(row, Provider):
                rows.append(row)
            else:
                log.warning(
                    "provider %r of %s left out: it is a %s, expected a Provider",
                    point.name,
                    _package(point),
                    type(row).__name__,
                )
    return rows


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else point.value
