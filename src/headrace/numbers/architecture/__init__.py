"""FLOPs and bytes of one forward pass, from a model's configuration alone.

``model_from_config`` and ``model_from_gguf`` read what a model is; ``forward`` counts a pass
(``prefill`` or ``decode``) through it, by rules that are parameters (``Conventions``).
"""

from headrace.numbers.architecture.config import known, model_from_config
from headrace.numbers.architecture.conventions import Conventions, Pass, decode, describe, prefill
from headrace.numbers.architecture.forward import (
    Forward,
    forward,
    generates,
    kv_bytes_per_token,
    size,
)
from headrace.numbers.architecture.gguf import model_from_gguf
from headrace.numbers.architecture.shapes import Model
from headrace.numbers.architecture.tree import Cost, Part, memory_bytes, total, walk

__all__ = [
    "Conventions",
    "Cost",
    "Forward",
    "Model",
    "Part",
    "Pass",
    "decode",
    "describe",
    "forward",
    "generates",
    "known",
    "kv_bytes_per_token",
    "memory_bytes",
    "model_from_config",
    "model_from_gguf",
    "prefill",
    "size",
    "total",
    "walk",
]
