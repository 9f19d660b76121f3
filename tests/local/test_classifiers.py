"""Classifiers out of folders: documents ranked, texts put in classes, as torch itself scores them."""

from __future__ import annotations

import pytest

from headrace.contracts.errors import (
    LLMContextLengthError,
    LLMInvalidRequestError,
)
from headrace.contracts.ranking import ClassificationRequest, RerankRequest
from headrace.contracts.record import Marks
from local import tiny
from local.standing import standing

torch = pytest.importorskip("torch", reason="torch is not installed: make test-local")
transformers = pytest.importorskip("transformers", reason="as torch")
pytest.importorskip("onnxruntime", reason="as torch")

from local import graphs  # noqa: E402  it needs them

QUERY = "Who met at the well?"
DOCUMENTS = (
    "The river runs from the hills to the sea.",
    "A fox, a crow and a hare met at the well: who would drink first?",
    "1 + 1 = 2",
    "fox",
)


class Judge:
    """transformers itself."""

    def __init__(self, folder) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        auto = transformers.AutoModelForSequenceClassification
        self.model = auto.from_pretrained(folder).eval()

    def scores(self, *texts: str) -> list[float]:
        encoded = self.tokenizer(*texts, return_tensors="pt")
        types = [0] * encoded["input_ids"].shape[1]
        if len(texts) == 2:
            second = len(self.tokenizer(texts[1])["input_ids"]) - 1
            types[-second:] = [1] * second
        with torch.inference_mode():
            logits = self.model(
                input_ids=encoded["input_ids"],
                attention_mask=encoded["attention_mask"],
                token_type_ids=torch.tensor([types]),
            ).logits[0]
        return logits.tolist()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=["transformers", "onnx"])
def ranker(request, models):
    folder = models / "ranker"
    if not folder.exists():
        tiny.bert(folder, labels=1)
        graphs.encoder_graph(folder, models / "ranker-onnx")
    asked = folder if request.param == "transformers" else models / "ranker-onnx"
    with standing(asked, request.param) as stands:
        yield stands, Judge(folder)


def rerank(stands, documents=DOCUMENTS, **settings):
    request = RerankRequest(**{"query": QUERY, "documents": documents, **settings})
    return stands.run(stands.engine.rerank(request, Marks()))


def test_documents_are_ranked_by_the_models_own_scores(ranker):
    stands, judge = ranker
    exact = [judge.scores(QUERY, each)[0] for each in DOCUMENTS]
    raw = rerank(stands, raw_scores=True)
    assert {each.index: each.relevance_score for each in raw.results} == pytest.approx(
        dict(enumerate(exact)), abs=1e-4
    )
    assert [each.relevance_score for each in raw.results] == sorted(
        (each.relevance_score for each in raw.results), reverse=True
    )
    usual = rerank(stands, top_n=2)
    assert [each.index for each in usual.results] == [each.index for each in raw.results[:2]]
    for each in usual.results:
        assert each.relevance_score == pytest.approx(
            float(torch.tensor(exact[each.index]).sigmoid()), abs=1e-5
        )
    tokens = sum(len(judge.tokenizer(QUERY, each)["input_ids"]) for each in DOCUMENTS)
    assert usual.usage.prompt_tokens == tokens
    assert rerank(stands, ()).results == ()


def test_a_document_that_is_too_long_is_told_of_or_cut_as_was_asked(ranker):
    stands, judge = ranker
    long = ("fox", "fox " * 100)
    with pytest.raises(LLMContextLengthError, match=r"documents\[1\] .* at most 64"):
        rerank(stands, long)
    cut = rerank(stands, long, truncate=True, raw_scores=True)
    found = {each.index: each.relevance_score for each in cut.results}
    # What is left of it by the tokenizer's own cutting.
    left = judge.tokenizer(QUERY, long[1], truncation="only_second", max_length=64)["input_ids"]
    start = len(judge.tokenizer(QUERY)["input_ids"])
    kept = judge.tokenizer.decode(left[start:-1])
    assert len(left) == 64
    assert found[1] == pytest.approx(judge.scores(QUERY, kept)[0], abs=1e-4)
    first = judge.tokenizer.decode(
        judge.tokenizer(DOCUMENTS[1], add_special_tokens=False)["input_ids"][:3]
    )
    (short,) = rerank(stands, DOCUMENTS[1:2], max_tokens_per_document=3, raw_scores=True).results
    assert short.relevance_score == pytest.approx(judge.scores(QUERY, first)[0], abs=1e-4)
    with pytest.raises(LLMContextLengthError, match="first text alone"):
        rerank(stands, ("a",), query="fox " * 90, truncate=True)
    with pytest.raises(
        LLMInvalidRequestError, match="knows no field 'top_m'; did you mean 'top_n'"
    ):
        rerank(stands, provider_options={"top_m": 1})


def test_texts_and_pairs_are_put_in_classes(models):
    folder = tiny.bert(models / "classes", labels=3)
    judge = Judge(folder)
    inputs = ("A fox", ("A fox", "a crow"), "1 + 1")
    with standing(folder, "transformers") as stands:
        request = ClassificationRequest(inputs=inputs)
        found = stands.run(stands.engine.classify(request, Marks()))
        raw = stands.run(
            stands.engine.classify(ClassificationRequest(inputs=inputs, raw_scores=True), Marks())
        )
        assert not hasattr(stands.engine, "rerank")
    for given, odds, scores in zip(inputs, found.labels, raw.labels, strict=True):
        exact = judge.scores(*([given] if isinstance(given, str) else given))
        by_label = {f"LABEL_{place}": score for place, score in enumerate(exact)}
        assert {each.label: each.score for each in scores} == pytest.approx(by_label, abs=1e-4)
        assert sum(each.score for each in odds) == pytest.approx(1.0)
        assert [each.label for each in odds] == sorted(by_label, key=lambda name: -by_label[name])


def test_an_engine_can_do_what_its_folder_says_and_nothing_else(models):
    for name, labels in (("plain", 0), ("one", 1)):
        tiny.bert(models / name, labels=labels)
    can = {}
    for name, backend in (("plain", "transformers"), ("one", "transformers")):
        with standing(models / name, backend) as stands:
            can[name] = [
                what for what in ("embed", "rerank", "classify") if hasattr(stands.engine, what)
            ]
    assert can == {"plain": ["embed"], "one": ["rerank", "classify"]}
