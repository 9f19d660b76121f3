"""The table of providers: how each is reached. Adding one is adding a row."""

from __future__ import annotations

from types import ModuleType

from attrs import frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.wire import openai_chat, openai_completions, openai_models
from headrace.wire.openai_params import COMMON, LLAMA_CPP, OPENAI, Dialect


@frozen(kw_only=True)
class Provider:
    """A backend's wire format, place and quirks.

    ``base_url`` has no trailing slash and ends where the format's paths begin (``/chat/...``).
    ``unsupported`` names settings of ours that it cannot carry out: a request with one is refused.
    ``options`` are the further body fields that it knows and ``ignored`` those that it takes and
    does nothing with; where ``options`` is ``None``, any field is passed on and it decides itself.

    Every backend is asked for a stream, also where the caller wants the answer whole: some
    (llama.cpp among them) do not notice that the caller of a plain request has left.
    """

    name: str
    base_url: str | None = None
    key_env: str | None = None
    chat: ModuleType = openai_chat
    completions: ModuleType = openai_completions
    models: ModuleType = openai_models
    chat_path: str = "/chat/completions"
    completions_path: str = "/completions"
    models_path: str = "/models"
    dialect: Dialect = COMMON
    unsupported: frozenset[str] = frozenset()
    options: frozenset[str] | None = None
    ignored: frozenset[str] = frozenset()


# OpenAI's own fields about its account, cache and hosted tools: an engine has nothing to do for them.
_OPENAI_HOUSEKEEPING = frozenset(
    [
        "metadata",
        "moderation",
        "modalities",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "verbosity",
        "web_search_options",
        "audio",
    ]
)

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
    models_path="/v1/models",
    dialect=LLAMA_CPP,
    unsupported=frozenset({"suffix"}),
    options=_LLAMA_CPP_OPTIONS,
    ignored=_OPENAI_HOUSEKEEPING,
)

PROVIDERS: dict[str, Provider] = {
    row.name: row
    for row in (
        Provider(
            name="openai",
            base_url="https://api.openai.com/v1",
            key_env="OPENAI_API_KEY",
            dialect=OPENAI,
            unsupported=frozenset({"top_k", "min_p", "repetition_penalty"}),
        ),
        Provider(name="openai-compatible"),
    )
}


def provider(name: str) -> Provider:
    """The row of that name; raises LLMInvalidRequestError that lists the known ones."""
    try:
        return PROVIDERS[name]
    except KeyError:
        known = ", ".join(sorted(PROVIDERS))
        raise LLMInvalidRequestError(f"unknown provider {name!r}; known: {known}") from None
