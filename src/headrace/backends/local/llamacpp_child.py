"""The llama.cpp child: its HTTP server on a loopback port that it chooses itself.

Speaks the contract of ``headrace.backends.child``. Imports nothing of headrace, so that it starts
as fast as the engine does.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any


def main() -> None:
    # The engine takes every core that there is; whoever hands its tokens on goes before it.
    os.nice(5)
    settings = json.loads(sys.stdin.buffer.readline())
    # The engine may print to standard output, where only our answer belongs.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        said: dict[str, Any] = {"ready": serve(settings)}
    except Exception as failure:  # noqa: BLE001  whatever it was, the parent must hear of it
        said = {"error": f"{type(failure).__name__}: {failure}"}
    try:
        answer.write(json.dumps(said) + "\n")
        answer.flush()
        if "ready" in said:
            sys.stdin.buffer.read()
    except OSError:  # the parent died while the model was loading
        pass
    finally:
        # Not sys.exit: tearing the server down waits for its requests, which nobody reads any
        # more.
        os._exit(0 if "ready" in said else 1)


def serve(settings: dict[str, Any]) -> dict[str, Any]:
    """Start the server; it runs in threads of its own."""
    # Its threads wait for one another many times a token, spinning. Where something else takes a
    # core meanwhile they spin for whole time slices: 4 tokens a second beside two busy processes,
    # 51 where they go to sleep after some 20 microseconds, at the same speed alone. Read by libgomp
    # as it is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    params.model_alias = {settings["name"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    # Other users of this machine can reach the port too: only our parent knows the key.
    params.api_keys = [settings["key"]]
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_metrics = True
    params.n_parallel = settings["slots"]
    # One cache for all slots: each request may use all of the context that it is allowed, in a
    # third of the memory that separate caches take.
    params.kv_unified = True
    params.n_ctx = settings["kv_tokens"]
    # Beyond the default of 37, keep-alive connections (and /health) would hang.
    params.n_threads_http = settings["http_threads"]
    params.cache_ram_mib = 0
    params.verbosity = 2
    if settings["embeddings"]:
        params.embedding = True
        # Each input must be computed whole: in one batch, in one go.
        params.n_batch = params.n_ubatch = settings["kv_tokens"]
        # The model's own: more of it than there are positions would kill it as it warms up.
        params.n_ctx = 0
    if settings["template"]:
        params.chat_template = settings["template"]
    if settings["threads"]:
        params.cpuparams.n_threads = settings["threads"]
        params.cpuparams_batch.n_threads = settings["threads"]
    server = xllamacpp.Server(params)
    globals()["_server"] = server  # alive until the process ends
    return {"url": server.listening_address}


if __name__ == "__main__":
    main()
