"""A model for ranking, made of the embedding model in the box and a head of chance.

It ranks like nothing on earth, but llama.cpp computes it as it does any reranker: so what our client
reads can be compared with the head's own arithmetic. Run as a program it serves such a file:
``reranker_gguf.py FILE POOLING``, whose address it prints, until its standard input ends.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WIDTH = 384


def head() -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], float]:
    """Weights and bias of its layer, and of its output."""
    chance = np.random.default_rng(7)
    layer = (chance.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)
    bias = np.full(WIDTH, 0.1, np.float32)
    return layer, bias, chance.standard_normal((1, WIDTH)).astype(np.float32), 0.25


def score(vector: NDArray[np.float32]) -> float:
    """What the head makes of the vector of a pair's first token."""
    layer, bias, output, last = head()
    return float((output @ np.tanh(layer @ vector + bias))[0] + last)


def write(source: Path, target: Path) -> Path:
    """The model of ``source`` with the head, as ``target``."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader, writer = GGUFReader(source), GGUFWriter(target, "bert")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            writer.add_array(field.name, field.contents())
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    layer, bias, output, last = head()
    writer.add_tensor("cls.weight", layer)
    writer.add_tensor("cls.bias", bias)
    writer.add_tensor("cls.output.weight", output)
    writer.add_tensor("cls.output.bias", np.array([last], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


def main() -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = sys.argv[1]
    params.model_alias = {"ranker"}
    params.hostnames, params.port, params.ui = ["127.0.0.1"], 0, False
    params.embedding = True
    params.pooling_type = getattr(xllamacpp.llama_pooling_type, f"LLAMA_POOLING_TYPE_{sys.argv[2]}")
    params.n_parallel, params.n_ctx, params.verbosity = 2, 0, 1
    params.n_batch = params.n_ubatch = 512
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
