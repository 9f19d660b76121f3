"""What HTTP costs: the same engine called inside its own process, over HTTP, and through the gateway.

    python -m benchmarks in_process [--tokens 1 64] [--calls N] [--repeats N]

One llama.cpp (the model in the box) runs in this process; it is asked by a plain Python call, by our
client over its HTTP port on loopback, and by our client through a gateway in a process of its own
that has that port as its backend. They take turns, one answer at a time, so that nothing waits for
anything but the engine. Printed are milliseconds a call (median, and the range of the repeats'
medians) and what the way adds to the plain call.
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from headrace import Client
from headrace.backends.local.llamacpp_child import serve
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.stores.models import BOX, ModelStore

from ._processes import free_port, started

PROMPT = "Write a long story about a river that turns a wheel."


def messages() -> list[dict[str, str]]:
    return [
        {"role": "system", "content": ""},
        {"role": "user", "content": f"{PROMPT} {secrets.token_hex(4)}"},
    ]


def in_process(server: Any) -> Callable[[int], int]:
    def call(tokens: int) -> int:
        answer = server.handle_chat_completions(
            {"messages": messages(), "max_tokens": tokens, "ignore_eos": True, "temperature": 0}
        )
        answer = json.loads(answer) if isinstance(answer, str | bytes) else answer
        return int(answer["usage"]["completion_tokens"])

    return call


def by_client(client: Client) -> Callable[[int], int]:
    def call(tokens: int) -> int:
        said = [LLMMessage(role=m["role"], content=m["content"]) for m in messages()]  # type: ignore[arg-type]
        answer = client.generate(
            LLMRequest(
                messages=said,
                max_tokens=tokens,
                temperature=0,
                provider_options={"ignore_eos": True},
            )
        )
        assert answer.usage is not None
        return int(answer.usage.completion_tokens or 0)

    return call


@contextmanager
def gateway(url: str, key: str) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        config, port = Path(folder) / "gateway.yaml", free_port()
        config.write_text(
            f"server: {{port: {port}, page: false}}\nengine: {{enabled: false}}\n"
            "embeddings: {enabled: false}\n"
            f"backends:\n  - name: engine\n    provider: llama-server\n    base_url: {url}/v1\n"
            f"    api_key: {key}\n    models: ['*']\n"
        )
        command = [sys.executable, "-m", "headrace", "serve", str(config)]
        with started(command, log=Path(folder) / "log"):
            address = f"127.0.0.1:{port}"
            while True:
                with suppress(OSError), urlopen(f"http://{address}/health", timeout=5):
                    break
                time.sleep(0.05)
            yield address


def measured(call: Callable[[int], int], tokens: int, calls: int) -> float:
    took = []
    for _ in range(calls):
        begin = time.perf_counter()
        came = call(tokens)
        took.append(1000 * (time.perf_counter() - begin))
        assert came == tokens, f"{came} tokens came, {tokens} were asked for"
    return statistics.median(took)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--calls", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    key = secrets.token_hex(8)
    url = serve(
        {
            "path": str(ModelStore().find(BOX.name).path),
            "name": BOX.name,
            "key": key,
            "slots": 1,
            "kv_tokens": 2048,
            "http_threads": 16,
            "embeddings": False,
            "template": None,
            "threads": None,
        }
    )["url"]
    server = sys.modules["headrace.backends.local.llamacpp_child"]._server  # type: ignore[attr-defined]
    with ExitStack() as stack:
        address = stack.enter_context(gateway(url, key))
        direct = stack.enter_context(
            Client(BOX.name, provider="llama-server", base_url=f"{url}/v1", api_key=key)
        )
        through = stack.enter_context(Client(BOX.name, base_url=f"http://{address}/v1"))
        ways = {
            "in the process": in_process(server),
            "HTTP": by_client(direct),
            "HTTP, through the gateway": by_client(through),
        }
        for call in ways.values():
            measured(call, 4, 3)
        for tokens in options.tokens:
            medians: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(options.repeats):
                for name, call in ways.items():
                    medians[name].append(measured(call, tokens, options.calls))
            base = statistics.median(medians["in the process"])
            for name, each in medians.items():
                mid = statistics.median(each)
                print(
                    f"{tokens:4} tokens  {name:26} {mid:8.2f} ms ({min(each):.2f}-{max(each):.2f})  "
                    f"{mid - base:+6.2f} ms  x{mid / base:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
