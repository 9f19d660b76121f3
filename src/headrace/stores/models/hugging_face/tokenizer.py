"""``tokenizer.json`` and what goes with it, of the byte-level BPE that a GGUF file holds.

Format: https://huggingface.co/docs/tokenizers/components; the library's own reader is the judge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.stores.models import byte_pairs

# These put a text's letters together first; llama.cpp leaves that out, the models learned with it.
_COMPOSED = frozenset({"qwen2"})
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def read_tokenizer(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a tokenizer.json.

    Raises LLMCapabilityError for a tokenizer of another kind, LLMInvalidRequestError for a
    vocabulary that contradicts itself.
    """
    kind, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    cuts = byte_pairs.CUTS.get(str(pre))
    if kind != "gpt2" or cuts is None:
        raise LLMCapabilityError(
            f"its tokenizer ({kind}, {pre}) cannot be exported; known is byte-level BPE (gpt2) "
            f"that cuts as {', '.join(byte_pairs.CUTS)}"
        )
    tokens = _tokens(metadata)
    in_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added(metadata),
        "normalizer": {"type": "NFC"} if pre in _COMPOSED else None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                *({"type": "Split", **_pattern(cut)} for cut in cuts),
                {**in_bytes, "use_regex": False},
            ],
        },
        "post_processor": _opening(metadata, tokens),
        "decoder": {**in_bytes, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre in byte_pairs.WORDS_FIRST,
            "vocab": tokens,
            "merges": _merges(metadata, tokens),
        },
    }


def read_tokenizer_config(metadata: Mapping[str, Any], longest: int) -> dict[str, Any]:
    """The words of a tokenizer_config.json: how the tokens are used, and the chat template."""
    template = _template(metadata)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": adds_bos(metadata),
        "clean_up_tokenization_spaces": False,
        "model_max_length": longest,
        **read_special(metadata),
        **({"chat_template": template} if template is not None else {}),
        "added_tokens_decoder": {
            str(entry["id"]): {name: value for name, value in entry.items() if name != "id"}
            for entry in _added(metadata)
        },
    }


def read_special(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The words of a special_tokens_map.json."""
    tokens = metadata["tokenizer.ggml.tokens"]
    found = {}
    for role, name in _ROLES.items():
        place = metadata.get(f"tokenizer.ggml.{name}_token_id")
        if place is not None:
            found[f"{role}_token"] = tokens[place]
    return found


def adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Whether a text that stands for itself begins with the beginning's token."""
    usual = metadata.get("tokenizer.ggml.pre") in byte_pairs.WORDS_FIRST
    return bool(metadata.get("tokenizer.ggml.add_bos_token", usual))


def _tokens(metadata: Mapping[str, Any]) -> dict[str, int]:
    listed: list[str] = metadata["tokenizer.ggml.tokens"]
    tokens = {token: place for place, token in enumerate(listed)}
    if len(tokens) != len(listed):
        twice = next(token for place, token in enumerate(listed) if tokens[token] != place)
        raise LLMInvalidRequestError(
            f"tokenizer.ggml.tokens holds {twice!r} twice; each token may be there once",
            param="model",
        )
    return tokens


def _merges(metadata: Mapping[str, Any], tokens: Mapping[str, int]) -> list[tuple[str, str]]:
    pairs = byte_pairs.merges(metadata)
    for first, second in pairs:
        for piece in (first, second, first + second):
            if piece not in tokens:
                raise LLMInvalidRequestError(
                    f"tokenizer.ggml.merges joins {first!r} and {second!r}, "
                    f"but {piece!r} is no token",
                    param="model",
                )
    return pairs


def _added(metadata: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tokens that are found in a text before it is cut."""
    tokens = metadata["tokenizer.ggml.tokens"]
    kinds = metadata.get("tokenizer.ggml.token_type") or ()
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": place, "content": token, **plain, "special": kind != byte_pairs.USER_DEFINED}
        for place, (token, kind) in enumerate(zip(tokens, kinds, strict=False))
        if kind in (byte_pairs.UNKNOWN, byte_pairs.CONTROL, byte_pairs.USER_DEFINED)
    ]


def _pattern(cut: str) -> dict[str, Any]:
    for name, spelt in (("{L}", r"\p{L}"), ("{N}", r"\p{N}"), ("{S}", r"\s")):
        cut = cut.replace(name, spelt)
    return {"pattern": {"Regex": cut}, "behavior": "Isolated", "invert": False}


def _opening(metadata: Mapping[str, Any], tokens: Mapping[str, int]) -> dict[str, Any]:
    in_bytes = {
        "type": "ByteLevel",
        "add_prefix_space": True,
        "trim_offsets": False,
        "use_regex": True,
    }
    token = read_special(metadata).get("bos_token")
    if not adds_bos(metadata) or token is None:
        return in_bytes
    begin = {"SpecialToken": {"id": token, "type_id": 0}}
    first, second = ({"Sequence": {"id": name, "type_id": kind}} for kind, name in enumerate("AB"))
    again = {"SpecialToken": {"id": token, "type_id": 1}}
    template = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, again, second],
        "special_tokens": {token: {"id": token, "ids": [tokens[token]], "tokens": [token]}},
    }
    return {"type": "Sequence", "processors": [in_bytes, template]}


def _template(metadata: Mapping[str, Any]) -> str | list[dict[str, str]] | None:
    """The chat template; a list by name where the file has several."""
    usual: str | None = metadata.get("tokenizer.chat_template")
    prefix = "tokenizer.chat_template."
    named = {key.removeprefix(prefix): v for key, v in metadata.items() if key.startswith(prefix)}
    if not named:
        return usual
    every = named if usual is None else {"default": usual, **named}
    return [{"name": name, "template": text} for name, text in every.items()]
