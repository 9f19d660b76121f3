"""Models computed by transformers in a child: what they say is what transformers itself says."""

from __future__ import annotations

import asyncio
import hashlib
import http.server
import json
import os
import signal
import threading
from contextlib import aclosing
from pathlib import Path
from typing import ClassVar

import attrs
import pytest

from backends.two_engines import ENDLESS, until
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
    LLMUnavailableError,
)
from headrace.contracts.messages import LLMMessage, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool
from local import tiny
from local.standing import standing

torch = pytest.importorskip("torch", reason="torch is not installed: make test-local")
transformers = pytest.importorskip("transformers", reason="as torch")

TURNS = (
    "Hi",
    "A fox, a crow and a hare met at the well.",
    "日本の首都は?",
    '{"name": "fox"}',
    "The river runs from the hills to the sea, and the sea gives it back as rain. " * 4,
)


def chat(text: str, **settings) -> LLMRequest:
    message = LLMMessage(role="user", content=text)
    return LLMRequest(messages=(message,), **{"temperature": 0, "max_tokens": 24, **settings})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.llama(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="module")
def stands(folder):
    with standing(folder, "transformers") as found:
        yield found


class Judge:
    """transformers itself, in this process."""

    def __init__(self, folder) -> None:
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32")

    def prompt(self, text: str) -> list[int]:
        turns = [{"role": "user", "content": text}]
        said = self.tokenizer.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
        return self.tokenizer(said, add_special_tokens=False)["input_ids"]

    def greedy(self, ids: list[int], most: int) -> list[int]:
        with torch.inference_mode():
            out = self.model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                do_sample=False,
                max_new_tokens=most,
                pad_token_id=tiny.END,
            )
        return out[0, len(ids) :].tolist()

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["llama", "qwen2", "mistral", "gpt2"])
def test_greedy_answers_are_transformers_own_alone_and_together(tmp_path, kind):
    made = tiny.causal(tmp_path / kind, kind)
    judge = Judge(made)
    with standing(made, "transformers") as stands:
        alone = [stands.ask(chat(text)) for text in TURNS]
        together = stands.ask_all(*(chat(text) for text in TURNS))
    for text, *heard in zip(TURNS, alone, together, strict=True):
        prompt = judge.prompt(text)
        said = judge.greedy(prompt, 24)
        for each in heard:
            # A character that the last token cuts in two is left out.
            assert each.text == judge.text(said).rstrip("\N{REPLACEMENT CHARACTER}")
            assert each.usage.prompt_tokens == len(prompt)
            assert each.usage.completion_tokens == len(said)
            ends = "stop" if said[-1] == tiny.END else "length"
            assert each.ends == [(ends, None)]


def test_a_text_completion_begins_as_the_tokenizer_has_it(stands, folder):
    judge = Judge(folder)
    prompt = judge.tokenizer("Once upon a time")["input_ids"]
    assert prompt[0] == tiny.BEGIN
    said = judge.text(judge.greedy(prompt, 12)).rstrip("\N{REPLACEMENT CHARACTER}")
    for given in ("Once upon a time", tuple(prompt)):
        asked = LLMRequest(messages=(), prompt=given, temperature=0, max_tokens=12)
        assert stands.ask(asked).text == said
    echoed = LLMRequest(
        messages=(), prompt="Once upon a time", temperature=0, max_tokens=12, echo=True
    )
    assert stands.ask(echoed).text == "Once upon a time" + said


def test_log_probabilities_are_the_models(stands, folder):
    judge = Judge(folder)
    prompt = judge.prompt("Hi")
    said = judge.greedy(prompt, 6)
    heard = stands.ask(chat("Hi", max_tokens=6, logprobs=True, top_logprobs=3))
    with torch.inference_mode():
        scores = judge.model(torch.tensor([prompt + said])).logits[0].log_softmax(-1)
    told = heard.logprobs
    assert len(told) == len([each for each in said if each != tiny.END])
    for place, each in enumerate(told):
        exact = scores[len(prompt) + place - 1]
        assert each.logprob == pytest.approx(float(exact[said[place]]), abs=1e-3)
        assert [top.logprob for top in each.top] == pytest.approx(
            exact.topk(3).values.tolist(), abs=1e-3
        )
        assert each.top[0].token_bytes == each.token_bytes


def test_the_same_seed_gives_the_same_answers_and_each_of_several_its_own(stands):
    drawn = {"temperature": 1.0, "seed": 5, "max_tokens": 12}
    several = stands.ask(chat("Hi", **drawn, n=3))
    texts = [several.text_of(place) for place in range(3)]
    assert len(set(texts)) == 3
    assert several.usage.completion_tokens >= 3
    again = stands.ask_all(*(chat("Hi", **{**drawn, "seed": 5 + place}) for place in range(3)))
    assert [heard.text for heard in again] == texts
    assert stands.ask(chat("Hi", **{**drawn, "seed": 99})).text not in texts


def test_a_stop_string_ends_an_answer_and_is_named(stands):
    whole = stands.ask(chat("Hi")).text
    stop = whole[4:7]
    heard = stands.ask(chat("Hi", stop=("never", stop)))
    assert heard.text == whole[: whole.index(stop)]
    assert heard.ends == [("stop", stop)]


def test_a_schema_and_a_forced_call_are_held(stands):
    schema = {
        "type": "object",
        "properties": {"name": {"enum": ["fox", "crow"]}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    heard = stands.ask(chat("Who?", response_schema=schema, max_tokens=60, temperature=1.0, seed=1))
    found = json.loads(heard.text)
    assert found["name"] in ("fox", "crow")
    assert isinstance(found["age"], int)
    tool = ToolSpec(name="look", description="Looks.", input_schema=schema)
    heard = stands.ask(
        chat("Who?", tools=(tool,), tool_choice=NamedTool(name="look"), max_tokens=90, seed=1)
    )
    calls = [d.tool_call_delta for d in heard.deltas if d.tool_call_delta is not None]
    assert calls[0].name == "look"
    assert json.loads("".join(call.arguments_json_delta or "" for call in calls))["name"]
    assert heard.ends == [("tool_calls", None)]


def test_a_prompt_that_does_not_fit_is_told_of_with_both_lengths(stands):
    with pytest.raises(LLMContextLengthError, match="512 tokens"):
        stands.ask(chat("word " * 700))
    heard = stands.ask(chat("Hi", **{**ENDLESS, "max_tokens": None}))
    assert heard.usage.total_tokens == 512


def test_an_answer_that_nobody_waits_for_is_given_up_within_a_step(stands):
    engine = stands.engine

    async def leave():
        async with aclosing(engine.stream(chat("Hi", **ENDLESS), Marks())) as pieces:
            await anext(pieces)
            assert (await engine.metrics())[0].running == 1
        request = chat("Hi", max_tokens=2)
        async with aclosing(engine.stream(request, Marks())) as pieces:
            async for _ in pieces:
                # Two would be running, had the first one gone on.
                assert (await engine.metrics())[0].running <= 1

    stands.run(leave())


def test_a_child_that_is_killed_fails_what_it_had_as_retryable_and_is_started_again(folder):
    with standing(folder, "transformers") as stands:
        engine = stands.engine

        async def kill():
            pieces = engine.stream(chat("Hi", **ENDLESS), Marks())
            async with aclosing(pieces):
                await anext(pieces)
                os.kill(engine.snapshot().pid, signal.SIGKILL)
                with pytest.raises(LLMUnavailableError, match="ended while it answered") as failed:
                    async for _ in pieces:
                        pass
            assert failed.value.transient

        before = stands.ask(chat("Hi")).text
        stands.run(kill())
        assert stands.ask(chat("Hi")).text == before
        assert engine.snapshot().restarts == 1
        pid = engine.snapshot().pid
        assert engine.snapshot().memory_bytes > 0
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_engine_that_is_idle_ends_and_comes_back_with_the_next_call(folder):
    with standing(folder, "transformers", idle_timeout_s=0.2) as stands:
        stands.ask(chat("Hi", max_tokens=1))

        async def rest():
            await until(lambda: stands.engine.snapshot().state == "stopped")

        stands.run(rest())
        assert stands.engine.snapshot().pid is None
        assert stands.ask(chat("Hi", max_tokens=1)).ends


def test_what_a_folder_lacks_is_told(tmp_path):
    bare = tiny.llama(tmp_path / "bare")
    config = json.loads((bare / "tokenizer_config.json").read_text())
    del config["chat_template"]
    (bare / "tokenizer_config.json").write_text(json.dumps(config))
    with standing(bare, "transformers") as stands:
        with pytest.raises(LLMCapabilityError, match="no chat template"):
            stands.ask(chat("Hi"))
        assert stands.ask(LLMRequest(messages=(), prompt="Hi", temperature=0, max_tokens=2)).ends
        assert not hasattr(stands.engine, "embed")
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    with (
        standing(bare, "transformers") as stands,
        pytest.raises(LLMUnavailableError, match=r"pytorch_model\.bin"),
    ):
        stands.ask(chat("Hi"))


def test_vectors_are_the_models_states_pooled_as_the_folder_says(tmp_path):
    folder = tiny.sentence_transformer(tmp_path / "bert")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    texts = ("A fox", "The river runs from the hills to the sea", "crow", "1 + 1 = 2") * 12
    with standing(folder, "transformers") as stands:
        result = stands.embed(*texts)
        by_ids = stands.embed(tuple(tokenizer(texts[1])["input_ids"]))
        with pytest.raises(LLMContextLengthError, match=r"input\[1\] has .* at most 48"):
            stands.embed("a", "fox " * 60)
        with pytest.raises(LLMInvalidRequestError, match="makes vectors of 32 numbers"):
            stands.embed("a", dimensions=16)
        with pytest.raises(LLMCapabilityError, match="makes embeddings, not text"):
            stands.ask(LLMRequest(messages=(), prompt="Hi"))
    tokens = 0
    for text, vector in zip(texts, result.vectors, strict=True):
        encoded = tokenizer(text, return_tensors="pt")
        tokens += encoded["input_ids"].shape[1]
        with torch.inference_mode():
            exact = model(**encoded).last_hidden_state[0].mean(0)
        exact = (exact / exact.norm()).tolist()
        assert list(vector) == pytest.approx(exact, abs=1e-5)
    assert result.usage.prompt_tokens == tokens
    assert list(by_ids.vectors[0]) == pytest.approx(list(result.vectors[1]), abs=1e-6)


def test_many_at_once_are_written_together_and_wait_for_a_place(folder):
    with standing(folder, "transformers", slots=2) as stands:
        engine = stands.engine

        async def watch() -> list[tuple[int, int]]:
            seen = []

            async def one(text: str) -> str:
                said = ""
                async for delta in engine.stream(
                    chat(text, **{**ENDLESS, "max_tokens": 20}), Marks()
                ):
                    said += delta.text_delta or ""
                    (told,) = await engine.metrics()
                    seen.append((told.running, told.queued))
                return said

            await asyncio.gather(*(one(f"Question {i}") for i in range(5)))
            return seen

        seen = stands.run(watch())
    assert max(running for running, _ in seen) == 2
    assert max(queued for _, queued in seen) >= 2


def test_reasoning_is_told_apart_and_asked_for_in_the_templates_own_variables(tmp_path):
    folder = tiny.llama(tmp_path / "thinker")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    # As Qwen3's and DeepSeek's: the prompt ends with the mark, or with a thought that is empty.
    config["chat_template"] = tiny.TEMPLATE + (
        "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n"
        "{% else %}<think>\n{% endif %}"
    )
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with standing(folder, "transformers") as stands:
        thinks = stands.ask(chat("Hi"))
        assert thinks.text == ""
        thought = "".join(d.reasoning_delta or "" for d in thinks.deltas)
        assert thought
        plain = stands.ask(chat("Hi", reasoning_effort="none"))
        assert plain.text
        assert not any(d.reasoning_delta for d in plain.deltas)
        by_name = chat("Hi", provider_options={"chat_template_kwargs": {"enable_thinking": False}})
        assert stands.ask(by_name).text == plain.text
        held = stands.ask(chat("Hi", response_schema={"enum": [1, 2]}))
        assert held.text in ("1", "2")


def test_an_assistants_turn_at_the_end_is_gone_on_with(stands, folder):
    judge = Judge(folder)
    begun = (
        LLMMessage(role="user", content="Hi"),
        LLMMessage(role="assistant", content="A fox"),
    )
    said = "<|begin|><|user|>Hi<|end|>\n<|assistant|>A fox"
    prompt = judge.tokenizer(said, add_special_tokens=False)["input_ids"]
    heard = stands.ask(LLMRequest(messages=begun, temperature=0, max_tokens=10))
    assert heard.usage.prompt_tokens == len(prompt)
    assert heard.text == judge.text(judge.greedy(prompt, 10)).rstrip("\N{REPLACEMENT CHARACTER}")


def test_an_endpoint_of_a_folder_is_asked_by_its_type(folder):
    import headrace

    headrace.register_endpoint(str(folder), "cpu:0")
    handler = headrace.endpoint_handler[str(folder)]["cpu:0"]
    judge = Judge(folder)
    try:
        answer = handler("Hi", temperature=0, max_tokens=8)
    finally:
        headrace.endpoint_handler.close()
    said = judge.text(judge.greedy(judge.prompt("Hi"), 8))
    assert answer.text == said.rstrip("\N{REPLACEMENT CHARACTER}")


def test_python_asks_it_by_its_registered_name(folder):
    import headrace

    judge = Judge(folder)
    headrace.register_engine(
        name="out-of-a-folder",
        backend="transformers",
        model=str(folder),
        env={"OMP_NUM_THREADS": 1},
    )
    try:
        one, other = headrace.generate(
            "out-of-a-folder", ["Hi", TURNS[1]], {"temperature": 0, "max_tokens": 8}
        )
        with headrace.Client(engine="out-of-a-folder") as client:
            found = client.chat("Who?", output=Answer, max_tokens=80, seed=1)
            assert client.server_snapshot()["state"] == "ready"
    finally:
        headrace.unregister_engine("out-of-a-folder")
    for text, answer in (("Hi", one), (TURNS[1], other)):
        said = judge.text(judge.greedy(judge.prompt(text), 8))
        assert answer.text == said.rstrip("\N{REPLACEMENT CHARACTER}")
        assert answer.provider == "transformers"
    assert isinstance(found.output.age, int)


@attrs.frozen
class Answer:
    """What is asked for as an object."""

    age: int


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hugging Face hub as fetching a model takes: its files and their hashes."""

    folder: Path
    asked: ClassVar[list[str]] = []

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked.append(self.path)
        name = self.path.rpartition("/main/")[2] or self.path.rpartition("/")[2]
        file = self.folder / self.path.rpartition("/")[2]
        if self.path.startswith("/api/models/"):
            if "/me/tiny/" not in f"{self.path}/":
                return self.send_error(404, name)
            names = [*(each.name for each in self.folder.iterdir()), "pytorch_model.bin", "x.py"]
            files = [
                {"type": "file", "path": n, "size": 1, "oid": "0", "rfilename": n} for n in names
            ]
            whole = {"id": "me/tiny", "sha": SHA, "siblings": files}
            told = files if "/tree/" in self.path else whole
            return self._answer(json.dumps(told).encode(), "application/json")
        if not file.is_file():
            return self.send_error(404, name)
        self._answer(file.read_bytes(), "application/octet-stream")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("etag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("x-repo-commit", SHA)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


SHA = "0123456789abcdef0123456789abcdef01234567"


def test_a_name_of_the_hub_is_fetched_without_pickles_and_code(folder, tmp_path):
    judge = Judge(folder)
    Hub.folder = folder
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    env = {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}",
        "HF_HOME": str(tmp_path / "hub"),
        "HF_HUB_DISABLE_XET": "1",
        "OMP_NUM_THREADS": "1",
    }
    said = judge.text(judge.greedy(judge.prompt("Hi"), 6)).rstrip("\N{REPLACEMENT CHARACTER}")
    try:
        with standing("me/tiny", "transformers", extra_env=env) as stands:
            assert stands.ask(chat("Hi", max_tokens=6)).text == said
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert not [path for path in Hub.asked if path.endswith((".bin", ".py"))]
    # What is here is not fetched again, and no hub needs to be there.
    with standing("me/tiny", "transformers", extra_env=env) as stands:
        assert stands.ask(chat("Hi", max_tokens=6)).text == said
    with (
        standing("me/other", "transformers", extra_env=env) as stands,
        pytest.raises(LLMUnavailableError, match="me/other") as failed,
    ):
        stands.ask(chat("Hi"))
    assert "hub" in str(failed.value)
