"""Exported folders judged by others: transformers reads the same GGUF file, llama.cpp the same texts."""

from __future__ import annotations

import asyncio
import warnings

import pytest

from headrace.backends.local.llamacpp import LlamaCpp, LlamaCppSettings
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.stores.models.hugging_face import export_folder
from stores.tiny_gguf import CONTEXT, HEAD, TOKENS, llama3_factors, write_tiny

torch = pytest.importorskip("torch", reason="torch is not installed: make test-profile")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed: make test-profile"
)
torch.set_num_threads(1)

TEXTS = (
    "Hello, world! It's 12345 o'clock, and they'LL see.",
    "  two  spaces,\n\n\ta tab \r\n and an end \n",
    "日本語 und Émigrés: e\u0301 ½ ² Ⅷ ٣ — “quoted” 🎉🏳️‍🌈",
    "<|im_start|> is a token and <|im_strt|> is not; </s>",
    "def f(x):\n    return x**2  # 3.14159e-10\n",
    "\u00a0hard\u2003spaces\u3000\u200b",
)


@pytest.fixture(scope="module")
def folder(box_model, tmp_path_factory):
    """The model in the box, exported with all of its bits."""
    out = tmp_path_factory.mktemp("exported") / "box"
    export_folder(box_model.path, out, "f32", lambda *_: None)
    return out


def from_gguf(cls, path, **more):
    return cls.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True, **more)


def from_folder(cls, path, **more):
    return cls.from_pretrained(path, local_files_only=True, **more)


def logits(model, tokens):
    with torch.no_grad():
        return model.eval()(torch.tensor([tokens])).logits


@pytest.mark.real_model
def test_the_model_in_the_box_has_the_weights_and_logits_that_transformers_reads(box_model, folder):
    cls = transformers.AutoModelForCausalLM
    theirs = from_gguf(cls, box_model.path, dtype=torch.float32)
    ours = from_folder(cls, folder)
    assert ours.dtype == torch.float32
    expected, found = theirs.state_dict(), ours.state_dict()
    assert set(expected) == set(found)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    tokens = from_folder(transformers.AutoTokenizer, folder)(TEXTS[0]).input_ids
    assert torch.equal(logits(theirs, tokens), logits(ours, tokens))


@pytest.mark.real_model
def test_the_model_in_the_box_has_the_prompts_that_llama_cpp_makes(box_model, folder):
    """Not those of transformers, which leaves out that each digit stands alone ("½")."""
    ours = from_folder(transformers.AutoTokenizer, folder)
    engine = asyncio.run(llama_cpp(box_model.path, TEXTS))
    for text, prompt in zip(TEXTS, engine, strict=True):
        assert ours.decode(ours(text).input_ids) == text
        turns = [{"role": "user", "content": text}]
        assert list(asked(ours, turns)) == list(prompt), text


def asked(tokenizer, turns):
    return tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


async def llama_cpp(path, texts):
    """The tokens of the prompts that the engine makes of these texts, by its own template."""
    transport = PooledTransport()
    settings = LlamaCppSettings(name="box", path=path, slots=1, kv_tokens=2048)
    engine = LlamaCpp(settings, World(transport=transport))
    try:
        await engine.start()
        return [
            await engine.prompt_tokens(
                LLMRequest(messages=(LLMMessage(role="user", content=text),), max_tokens=1)
            )
            for text in texts
        ]
    finally:
        await engine.aclose()
        await transport.aclose()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_small_models_have_the_logits_that_transformers_finds(tmp_path, architecture, kind):
    source = write_tiny(tmp_path / "tiny.gguf", architecture, kind=kind)
    export_folder(source, tmp_path / "out", "f32", lambda *_: None)
    cls = transformers.AutoModelForCausalLM
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about token ids that it cannot guess
        # It overlooks how wide a Qwen 3 head is.
        more = {"head_dim": HEAD} if architecture == "qwen3" else {}
        theirs = from_gguf(cls, source, dtype=torch.float32, **more)
    ours = from_folder(cls, tmp_path / "out")
    tokens = list(range(40, 90))
    assert torch.allclose(logits(theirs, tokens), logits(ours, tokens), atol=1e-5)


def test_llama_3_1_s_waves_are_those_of_the_file(tmp_path):
    """transformers leaves rope_freqs out where it reads a GGUF file: its formula is the judge."""
    factors = llama3_factors()
    source = write_tiny(tmp_path / "tiny.gguf", factors=factors)
    export_folder(source, tmp_path / "out", "f32", lambda *_: None)
    ours = from_folder(transformers.AutoModelForCausalLM, tmp_path / "out")
    waves = ours.model.rotary_emb.inv_freq
    plain = 500_000.0 ** -(torch.arange(0, 2 * len(factors), 2) / (2 * len(factors)))
    assert torch.allclose(waves, plain / torch.tensor(factors, dtype=torch.float32), rtol=1e-5)


def test_a_tokenizer_of_llama_3_begins_its_texts_and_takes_whole_words_first(tmp_path):
    export_folder(write_tiny(tmp_path / "tiny.gguf"), tmp_path / "out", "bf16", lambda *_: None)
    tokenizer = from_folder(transformers.AutoTokenizer, tmp_path / "out")
    tokens = tokenizer("the the<|eot_id|>").input_ids
    assert [TOKENS[token] for token in tokens] == [
        "<|begin_of_text|>",
        "the",
        "\u0120the",
        "<|eot_id|>",
    ]
    assert tokenizer.model_max_length == CONTEXT
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|begin_of_text|>", "<|eot_id|>")
