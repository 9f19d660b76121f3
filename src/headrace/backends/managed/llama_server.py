"""llama.cpp's server from the wheel that we depend on, as a program with its usual flags.

``python -m headrace.backends.managed.llama_server --model FILE --port 8080``. It has those of
llama-server's flags that engines need most; whoever needs others puts llama-server on PATH.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llama-server", allow_abbrev=False)
    parser.add_argument("-m", "--model", required=True, help="a GGUF file")
    parser.add_argument("-a", "--alias", help="the name that the model has for callers")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on")
    parser.add_argument("-c", "--ctx-size", type=int, default=0, help="tokens; 0: the model's own")
    parser.add_argument("-np", "--parallel", type=int, default=4, help="requests at once")
    parser.add_argument("-t", "--threads", type=int, default=0, help="0: as it sees fit")
    parser.add_argument("-ngl", "--n-gpu-layers", type=int, help="layers that a GPU computes")
    parser.add_argument("--chat-template", help="a template, instead of the model's own")
    parser.add_argument("--embeddings", action="store_true", help="serve embeddings alone")
    parser.add_argument("--metrics", action="store_true", help="show figures at /metrics")
    return parser


def main() -> None:
    asked = _flags().parse_args()
    if not os.path.isfile(asked.model):  # noqa: PTH113 - pathlib would cost as much as the rest
        sys.exit(f"llama-server: error: there is no file {asked.model!r}")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = asked.model
    if asked.alias:
        params.model_alias = {asked.alias}
    params.hostnames = [asked.host]
    params.port = asked.port
    key = os.environ.get("LLAMA_API_KEY")
    if key:
        params.api_keys = [key]
    params.ui = False
    params.n_parallel = asked.parallel
    params.kv_unified = True
    params.n_ctx = asked.ctx_size
    # Beyond the default, connections that are kept alive (and /health) would hang.
    params.n_threads_http = 4 * asked.parallel + 64
    params.endpoint_metrics = asked.metrics
    if asked.threads:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = asked.threads
    if asked.n_gpu_layers is not None:
        params.n_gpu_layers = asked.n_gpu_layers
    if asked.chat_template:
        params.chat_template = asked.chat_template
    if asked.embeddings:
        params.embedding = True
    stopped = {signal.SIGTERM, signal.SIGINT}
    # Before its threads begin, which would otherwise be those that the signal finds.
    signal.pthread_sigmask(signal.SIG_BLOCK, stopped)
    server = xllamacpp.Server(params)
    sys.stderr.write(f"llama-server: listening at {server.listening_address}\n")
    sys.stderr.flush()
    signal.sigwait(stopped)
    # Tearing it down waits for its requests, which nobody reads any more.
    os._exit(0)


if __name__ == "__main__":
    main()
