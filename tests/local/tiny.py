"""Real models of a few kilobytes, made here: folders as save_pretrained writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CORPUS = (
    "The river runs from the hills to the sea, and the sea gives it back as rain.",
    "A fox, a crow and a hare met at the well: who would drink first?",
    'It said "hello" twice; nobody answered. 1 + 1 = 2, 3 * 7 = 21.',
    "Ünïcödé — naïve café, 日本の首都は東京です, 😀🎉 and so on.",
    '{"name": "fox", "age": 3, "tags": ["red", "quick"]}',
)
TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "<|{{ message.role }}|>{{ message.content }}<|end|>\n"
    "{% endfor %}"
    "{% if tools %}<|tools|>{{ tools | tojson }}<|end|>\n{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = (
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|tool|>",
    "<|tools|>",
)
BEGIN, END = 0, 1


def byte_tokenizer(folder: Path, vocabulary: int = 400) -> Any:
    """A byte-level BPE tokenizer, trained on a few sentences."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|begin|> $A", special_tokens=[("<|begin|>", BEGIN)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "bos_token": "<|begin|>",
                "eos_token": "<|end|>",
                "chat_template": TEMPLATE,
            }
        )
    )
    return tokenizer


def llama(folder: Path, *, context: int = 512, **changed: Any) -> Path:
    """A Llama of two layers with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    size = byte_tokenizer(folder).get_vocab_size()
    config = LlamaConfig(
        **{
            "vocab_size": size,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": context,
            "bos_token_id": BEGIN,
            "eos_token_id": END,
            "initializer_range": 0.3,
            **changed,
        }
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def causal(folder: Path, kind: str) -> Path:
    """A causal language model of that kind, with random weights."""
    import torch
    import transformers

    if kind == "llama":
        return llama(folder)
    size = byte_tokenizer(folder).get_vocab_size()
    usual: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": BEGIN,
        "eos_token_id": END,
        "initializer_range": 0.3,
    }
    if kind == "qwen2":
        config = transformers.Qwen2Config(**usual)
    elif kind == "mistral":  # forgets what lies further back than eight tokens
        config = transformers.MistralConfig(**usual, sliding_window=8, head_dim=16)
    elif kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=size,
            n_embd=64,
            n_layer=2,
            n_head=4,
            n_positions=512,
            bos_token_id=BEGIN,
            eos_token_id=END,
            initializer_range=0.3,
        )
    else:
        raise AssertionError(kind)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def word_tokenizer(folder: Path) -> Any:
    """A WordPiece tokenizer with BERT's special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from tokenizers.trainers import WordPieceTrainer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {f"{name[1:-1].lower()}_token": name for name in special}
    said = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return tokenizer


def bert(folder: Path, *, labels: int = 0) -> Path:
    """A BERT of two layers with random weights; with ``labels`` a classifier of so many."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    size = word_tokenizer(folder).get_vocab_size()
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,
        **({"num_labels": labels} if labels else {}),
    )
    torch.manual_seed(2)
    model = BertForSequenceClassification(config) if labels else BertModel(config)
    model.save_pretrained(folder)
    return folder


def sentence_transformer(folder: Path) -> Path:
    """The same as sentence-transformers lays it down: pooled by the mean, made of length 1."""
    bert(folder)
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling/config.json").write_text(json.dumps(said))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 48}))
    return folder
