"""Vectors out of hidden states, as a folder of sentence-transformers says; and what it may not say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headrace.backends.local.folders.kinds import (
    CLASSIFY,
    EMBED,
    GENERATE,
    RERANK,
    kind_of,
    labels_of,
)
from headrace.backends.local.folders.pooling import read_pooling
from headrace.contracts.errors import LLMInvalidRequestError

LENGTHS = [3, 5, 1]
STATES = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
# What lies behind a text's own tokens must not matter.
for row, length in enumerate(LENGTHS):
    STATES[row, length:] = 1e6
OWN = [STATES[row, :length].astype(np.float64) for row, length in enumerate(LENGTHS)]
BY_HAND = {
    "cls": [own[0] for own in OWN],
    "mean": [own.mean(axis=0) for own in OWN],
    "max": [own.max(axis=0) for own in OWN],
    "mean_sqrt_len_tokens": [own.sum(axis=0) / len(own) ** 0.5 for own in OWN],
    "lasttoken": [own[-1] for own in OWN],
    "weightedmean": [np.average(own, axis=0, weights=np.arange(1, len(own) + 1)) for own in OWN],
}
OLD_NAMES = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "lasttoken": "pooling_mode_lasttoken",
    "weightedmean": "pooling_mode_weightedmean_tokens",
}


def folder_with(folder, *modules, pooling=None, **files):
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate([("Transformer", ""), *modules])
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling/config.json").write_text(json.dumps(pooling))
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize("mode", BY_HAND)
@pytest.mark.parametrize("form", ["word", "flag"])
def test_each_way_of_pooling_is_what_its_name_says(tmp_path, mode, form):
    off = dict.fromkeys(OLD_NAMES.values(), False)
    said = {"pooling_mode": mode} if form == "word" else {**off, OLD_NAMES[mode]: True}
    folder_with(tmp_path, ("Pooling", "1_Pooling"), pooling={"embedding_dimension": 4, **said})
    pooling = read_pooling(tmp_path)
    made = pooling.vectors(STATES, LENGTHS)
    assert made.dtype == np.float32
    np.testing.assert_allclose(made, np.array(BY_HAND[mode]), atol=1e-5)
    assert pooling.dimensions(4) == 4


def test_several_ways_stand_one_behind_the_other_and_lengths_become_one(tmp_path):
    said = {OLD_NAMES["cls"]: True, OLD_NAMES["mean"]: True}
    folder_with(tmp_path, ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"), pooling=said)
    pooling = read_pooling(tmp_path)
    made = pooling.vectors(STATES, LENGTHS)
    both = np.concatenate([BY_HAND["cls"], BY_HAND["mean"]], axis=1)
    np.testing.assert_allclose(made, both / np.linalg.norm(both, axis=1, keepdims=True), atol=1e-6)
    assert pooling.dimensions(4) == 8


def test_without_modules_it_is_the_mean_and_a_folders_prompt_and_lengths_are_heeded(tmp_path):
    pooling = read_pooling(tmp_path)
    assert (pooling.modes, pooling.normalises, pooling.model) == (("mean",), False, tmp_path)
    folder_with(
        tmp_path,
        ("Pooling", "1_Pooling"),
        pooling={"pooling_mode": "mean"},
        sentence_bert_config={"max_seq_length": 77, "do_lower_case": True},
        config_sentence_transformers={
            "prompts": {"query": "Query: ", "document": ""},
            "default_prompt_name": "query",
        },
    )
    pooling = read_pooling(tmp_path)
    assert (pooling.most_tokens, pooling.lower, pooling.prefix) == (77, True, "Query: ")


@pytest.mark.parametrize(
    ("modules", "pooling", "said"),
    [
        ([("LSTM", "1_LSTM")], None, "'LSTM'"),
        ([("Pooling", "1_Pooling")], {"pooling_mode": "median"}, "'median'"),
        ([("Pooling", "1_Pooling")], {"pooling_mode_median_tokens": True}, "median"),
        ([("Pooling", "1_Pooling")], {"pooling_mode": "mean", "include_prompt": False}, "include_"),
        ([("Pooling", "1_Pooling")], None, "has no config.json"),
        ([("Pooling", "../elsewhere")], None, "outside"),
    ],
)
def test_what_is_not_known_is_refused_by_name(tmp_path, modules, pooling, said):
    folder_with(tmp_path, *modules, pooling=pooling)
    with pytest.raises(LLMInvalidRequestError, match=said):
        read_pooling(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("LlamaForCausalLM", GENERATE),
        ("GPT2LMHeadModel", GENERATE),
        ("BertModel", EMBED),
        ("XLMRobertaForMaskedLM", EMBED),
        ("BertForSequenceClassification", CLASSIFY),
    ],
)
def test_a_folders_own_files_say_what_kind_of_model_it_holds(tmp_path, architecture, kind):
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    assert kind_of(tmp_path) is kind
    folder_with(tmp_path)
    assert kind_of(tmp_path) is EMBED


@pytest.mark.parametrize("said", [{"num_labels": 1}, {"id2label": {"0": "fits"}}])
def test_a_classifier_of_one_label_scores_documents(tmp_path, said):
    named = {"architectures": ["BertForSequenceClassification"], **said}
    (tmp_path / "config.json").write_text(json.dumps(named))
    assert kind_of(tmp_path) is RERANK


def test_labels_stand_in_the_order_of_their_scores(tmp_path):
    said = {"id2label": {"10": "k", "2": "c", "0": "a"}}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert labels_of(tmp_path) == ("a", "c", "k")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "has no config.json"),
        ("[1]", "holds a list"),
        ("{", "cannot be read"),
        ('{"architectures": ["WhisperForConditionalGeneration"]}', "WhisperForConditional"),
        ("{}", "no named architecture"),
    ],
)
def test_a_folder_of_no_such_model_says_why(tmp_path, text, said):
    if text is not None:
        (tmp_path / "config.json").write_text(text)
    with pytest.raises(LLMInvalidRequestError, match=said):
        kind_of(tmp_path)
