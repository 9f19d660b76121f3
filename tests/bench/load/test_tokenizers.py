"""Whoever counts counts as the model does, and an estimate never passes for a count."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from gguf import GGUFWriter

from headrace.bench.load.gguf_tokens import GgufTokenizer
from headrace.bench.load.tokenizers import Estimate, TargetTokenizer, Tokenizer, find_tokenizer
from headrace.stores.models.store import ModelStore

# The least of a byte-level vocabulary: the bytes, and words that merges lead to.
MERGES = ["t h", "th e", "Ġ the", "Ġ c", "Ġc a", "Ġca t", "1 2", "12 3"]


def letters() -> list[str]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    return [chr(b) for b in printable] + [chr(0x100 + n) for n in range(256 - len(printable))]


def write_gguf(path: Path, *, pre: str, model: str = "gpt2", whole: str | None = None) -> Path:
    tokens = [*letters(), *(merge.replace(" ", "") for merge in MERGES)]
    kinds = [1] * len(tokens)
    if whole is not None:
        tokens.append(whole)
        kinds.append(4)
    writer = GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(MERGES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("pre", "text", "tokens"),
    [
        ("gpt-2", "", 0),
        ("gpt-2", "the the cat", 3),
        ("gpt-2", "thé", 3),
        ("gpt-2", "the  cat", 3),
        ("gpt-2", "123", 1),
        ("smollm", "123", 3),
        ("qwen2", "123", 3),
        ("llama-bpe", "1231", 2),
        ("llama-bpe", "the\n\n the", 4),
        ("llama-bpe", "½²", 4),
    ],
)
def test_a_vocabulary_is_counted_with_as_its_models_way_of_cutting_words_says(
    tmp_path: Path, pre: str, text: str, tokens: int
) -> None:
    assert GgufTokenizer(write_gguf(tmp_path / "v.gguf", pre=pre)).count(text) == tokens


def test_a_token_that_the_vocabulary_defines_whole_is_found_before_words_are_cut(
    tmp_path: Path,
) -> None:
    path = write_gguf(tmp_path / "v.gguf", pre="gpt-2", whole="e c")
    assert GgufTokenizer(path).count("the cat") == 1 + 1 + 2


@pytest.mark.parametrize(("pre", "model"), [("unheard-of", "gpt2"), ("default", "llama")])
def test_a_tokenizer_that_is_not_known_is_refused_where_the_user_named_it(
    tmp_path: Path, pre: str, model: str
) -> None:
    path = write_gguf(tmp_path / "v.gguf", pre=pre, model=model)
    with pytest.raises(ValueError, match=f"cannot count with its tokenizer .{model}, {pre}"):
        find_tokenizer("m", "http://127.0.0.1:1", named=str(path))


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no file; expected a GGUF file"):
        find_tokenizer("m", "http://127.0.0.1:1", named=str(tmp_path / "nothing"))
    (tmp_path / "text").write_text("hello")
    with pytest.raises(ValueError, match="no GGUF file"):
        find_tokenizer("m", "http://127.0.0.1:1", named=str(tmp_path / "text"))


class Target(BaseHTTPRequestHandler):
    """Splits at spaces, in llama-server's form or in vLLM's."""

    protocol_version = "HTTP/1.1"
    form = "llama-server"
    asked: list[tuple[str, str | None]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"]))
        status, answer = 200, b""
        if self.form == "llama-server":
            words = asked["content"].split(" ")
            answer = json.dumps({"tokens": [1] * len(words)}).encode()
        elif self.form == "vllm":
            assert asked["model"] == "m"
            words = asked["prompt"].split(" ")
            answer = json.dumps({"count": len(words), "tokens": [1] * len(words)}).encode()
        else:
            status, answer = 404, b"no"
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def target() -> Iterator[tuple[str, type[Target]]]:
    class Mine(Target):
        asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", Mine
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("form", ["llama-server", "vllm"])
@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
def test_the_target_counts_itself_where_it_can(
    target: tuple[str, type[Target]], form: str, base: str
) -> None:
    url, server = target
    server.form = form
    found = find_tokenizer("m", url + base, headers=(("Authorization", "Bearer k"),))
    assert found.counted
    assert found.count("one two three") == 3
    assert set(server.asked) == {("/tokenize", "Bearer k")}
    found.close()


def test_a_target_that_cannot_count_leaves_an_estimate_that_says_so(
    target: tuple[str, type[Target]],
) -> None:
    url, server = target
    server.form = "none"
    assert find_tokenizer("m", url) == Estimate()
    assert not Estimate().counted
    with pytest.raises(ValueError, match="/tokenize answered with status 404"):
        TargetTokenizer(url)


def test_a_target_that_is_down_leaves_an_estimate() -> None:
    assert not find_tokenizer(None, "http://127.0.0.1:9").counted


@pytest.mark.real_model
def test_the_model_in_the_box_is_counted_with_its_own_vocabulary() -> None:
    store = ModelStore()
    store.find("smollm2-135m-instruct")
    found: Tokenizer = find_tokenizer("SmolLM2-135M-Instruct", "http://127.0.0.1:9")
    assert found.counted
    assert "smollm" in found.source
    # As the engine says for the same texts.
    assert found.count("Hello world, it is 2026!") == 11
