"""Models computed by ONNX Runtime in a child that has no torch: what they say is what torch says."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMUnavailableError,
)
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from local import tiny
from local.standing import standing

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: make test-local")
pytest.importorskip("onnx", reason="as onnxruntime")
pytest.importorskip("transformers", reason="as onnxruntime")

from local import graphs

TURNS = (
    "Hi",
    "A fox, a crow and a hare met at the well.",
    "日本の首都は?",
    "The river runs from the hills to the sea, and the sea gives it back as rain. " * 4,
)


def chat(text: str, **settings) -> LLMRequest:
    message = LLMMessage(role="user", content=text)
    return LLMRequest(messages=(message,), **{"temperature": 0, "max_tokens": 24, **settings})


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def llama(models):
    """The same model as a folder of weights and as one with a graph."""
    weights = tiny.llama(models / "llama")
    return weights, graphs.causal_graph(weights, models / "llama-onnx")


def test_greedy_answers_are_those_of_torch_alone_and_together(llama):
    weights, graph = llama
    with standing(weights, "transformers") as stands:
        theirs = stands.ask_all(*(chat(text) for text in TURNS))
    with standing(graph, "onnx") as stands:
        alone = [stands.ask(chat(text)) for text in TURNS]
        together = stands.ask_all(*(chat(text) for text in TURNS))
        assert stands.engine.snapshot().backend == "onnx"
    for theirs_each, *ours in zip(theirs, alone, together, strict=True):
        for each in ours:
            assert each.text == theirs_each.text
            assert each.ends == theirs_each.ends
            assert each.usage == theirs_each.usage
            assert each.marks.provider == "onnx"


def test_log_probabilities_draws_and_schemas_are_those_of_torch(llama):
    weights, graph = llama
    schema = {"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"]}
    asked = (
        chat("Hi", max_tokens=6, logprobs=True, top_logprobs=2),
        chat("Hi", temperature=0.9, top_p=0.9, seed=4, n=2),
        chat("Hi", response_schema=schema, seed=1),
    )
    found = []
    for folder, backend in ((weights, "transformers"), (graph, "onnx")):
        with standing(folder, backend) as stands:
            found.append([stands.ask(each) for each in asked])
    theirs, ours = found
    for one, other in zip(theirs[0].logprobs, ours[0].logprobs, strict=True):
        assert other.token == one.token
        assert other.logprob == pytest.approx(one.logprob, abs=1e-3)
    for place in range(2):
        assert ours[1].text_of(place) == theirs[1].text_of(place)
    assert json.loads(ours[2].text) == json.loads(theirs[2].text)


def test_a_prompt_that_does_not_fit_is_told_of(llama):
    with (
        standing(llama[1], "onnx", max_model_len=40) as stands,
        pytest.raises(LLMContextLengthError, match="40 tokens"),
    ):
        stands.ask(chat("word " * 60))


@pytest.mark.parametrize("below", ["", "onnx"])
def test_vectors_are_those_of_torch(models, below):
    weights = tiny.sentence_transformer(models / f"bert{below}")
    graph = graphs.encoder_graph(weights, models / f"bert{below}-onnx", below=below)
    texts = ("A fox", "The river runs from the hills to the sea", "crow") * 3
    found = []
    for folder, backend in ((weights, "transformers"), (graph, "onnx")):
        with standing(folder, backend) as stands:
            found.append(stands.embed(*texts))
            with pytest.raises(LLMCapabilityError, match="makes embeddings"):
                stands.ask(chat("Hi"))
    theirs, ours = found
    assert ours.usage == theirs.usage
    for one, other in zip(theirs.vectors, ours.vectors, strict=True):
        assert list(other) == pytest.approx(list(one), abs=1e-5)


def test_its_child_needs_no_torch(llama):
    program = (
        "import sys, runpy\n"
        "for name in ('torch', 'transformers', 'safetensors'):\n"
        "    sys.modules[name] = None\n"
        "from pathlib import Path\n"
        "from headrace.backends.local.folders.computing import Loading\n"
        "from headrace.backends.local.folders import onnx_models\n"
        f"loaded = onnx_models.load(Loading(folder=Path({str(llama[1])!r}), kind='generate'))\n"
        "past, scores = loaded.decoder.read(None, [0, 5, 6])\n"
        "print(scores.shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(1, ")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "model.onnx").unlink(), "has no model.onnx"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "model.onnx").write_bytes(b"no graph"), "does not load"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is no tokenizer"),
    ],
    ids=["graph", "tokenizer", "broken graph", "broken tokenizer"],
)
def test_what_is_missing_or_broken_in_a_folder_is_named(llama, tmp_path, change, said):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(llama[1], folder)
    change(folder)
    with (
        standing(folder, "onnx") as stands,
        pytest.raises(LLMUnavailableError, match=said) as failed,
    ):
        stands.ask(chat("Hi"))
    assert not failed.value.transient


def test_a_graph_without_a_memory_says_how_to_export_it(models, tmp_path):
    folder = graphs.encoder_graph(tiny.bert(models / "plain"), tmp_path / "plain-onnx")
    with (
        standing(folder, "onnx", task="generate") as stands,
        pytest.raises(LLMUnavailableError, match="text-generation-with-past"),
    ):
        stands.ask(chat("Hi"))
