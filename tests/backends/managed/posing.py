"""A stand-in by the name of each program: it takes that one's flags and variables, and no others.

Installed as ``vllm``, ``max``, ``ollama`` and so on, it reads its command line as they do, by
``--help`` texts of their makers' kinds, and serves in the place where they serve.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# How each is told a model, the flags that it knows, and where it answers.
PROGRAMS = {
    "vllm": {
        "words": ("serve", "MODEL"),
        "flags": "--host --port --dtype --gpu-memory-utilization --max-model-len "
        "--tensor-parallel-size,-tp --reasoning-parser --served-model-name --max-num-seqs",
        "switches": "--enforce-eager",
        "key": "VLLM_API_KEY",
    },
    "max": {
        "words": ("serve",),
        "flags": "--model,--model-path --port --quantization-encoding --max-length --devices "
        "--device-memory-utilization --max-batch-size --served-model-name --reasoning-parser",
        "host": "MAX_SERVE_HOST",
        "ready": "/v1/health",
    },
    "sglang": {
        "words": ("serve",),
        "flags": "--model-path,--model --host --port --dtype --mem-fraction-static --context-length "
        "--tp-size,--tensor-parallel-size --reasoning-parser --served-model-name",
        "switches": "--enable-metrics",
    },
    "text-generation-launcher": {
        "flags": "--model-id --hostname --port,-p --dtype --num-shard --max-total-tokens "
        "--cuda-memory-fraction",
        "key": "API_KEY",
    },
    "text-embeddings-router": {
        "flags": "--model-id --hostname --port,-p --dtype --served-model-name",
        "key": "API_KEY",
        "lists_nothing": True,
    },
    "ollama": {"words": ("serve",), "flags": "", "address": "OLLAMA_HOST", "ready": "/"},
    "ovms": {
        "flags": "--model_path --model_name --source_model --model_repository_path --task "
        "--rest_port --rest_bind_address --reasoning_parser",
        "key": "API_KEY",
        "ready": "/v2/health/ready",
        "base": "/v3",
    },
    "llama-server": {
        "flags": "--model,-m --hf-repo,-hf --alias,-a --host --port --ctx-size,-c "
        "--reasoning-format --parallel,-np",
        "switches": "--metrics",
        "key": "LLAMA_API_KEY",
    },
}


def main() -> None:
    name = Path(sys.argv[0]).name
    own = PROGRAMS[name]
    with Path(sys.argv[0]).with_name("asked").open("a") as asked_of:
        asked_of.write(f"{name} {' '.join(sys.argv[1:])}\n")
    parser = argparse.ArgumentParser(prog=name, allow_abbrev=False, add_help=False)
    parser.add_argument("--help", nargs="?", const="all")
    for word in own.get("words", ()):
        parser.add_argument(word.lower(), nargs="?")
    for names in own["flags"].split():
        parser.add_argument(*names.split(","))
    for names in own.get("switches", "").split():
        parser.add_argument(names, f"--no-{names[2:]}", action="store_true")
    said = vars(parser.parse_args())
    if said["help"]:
        parser.print_help()
        return
    model = next(
        said[each]
        for each in ("model", "model_path", "model_id", "source_model", "hf_repo", "serve")
        if said.get(each)
    )
    host = said.get("host") or said.get("hostname") or said.get("rest_bind_address")
    port = said.get("port") or said.get("rest_port")
    if "host" in own:
        host = os.environ[own["host"]]
    if "address" in own:
        host, _, port = os.environ[own["address"]].partition(":")
        model = "stand-in-1:latest"
    served = said.get("served_model_name") or said.get("alias") or said.get("model_name") or model
    words = [sys.argv[0], served, "--host", host, "--port", port]
    words += ["--ready-path", own.get("ready", "/health"), "--base-path", own.get("base", "/v1")]
    if own.get("lists_nothing"):
        words.append("--lists-nothing")
    key = os.environ.get(own["key"]) if "key" in own else None
    if key:
        words += ["--api-key", key]
    sys.argv = words
    import stand_in  # beside this file: its folder is on the path where this is run

    stand_in.main()
