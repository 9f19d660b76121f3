"""What translation costs: CPU of the gateway a request and a streamed chunk, for each pair of formats.

    python -m benchmarks wires [--face NAME ...] [--format NAME ...] [--repeats N] [--general]

One gateway on a core of its own has a backend for each format, all of them one lean server that
answers with bytes written beforehand; callers ask every face for every format. ``request`` is a
whole answer of 16 tokens, ``stream`` a stream of one, and ``chunk`` what each further chunk costs: 32
streams at a time, a chunk each 5 ms, less as many streams of one. CPU is that of the gateway's
process, as the kernel counts it; shown are the median over the repeats, the least and the greatest,
and the median of the ratios to pass-through in the same repeat: a chat for a backend of the same
format, which goes on as it came. A whole answer of a provider that is asked for streams alone (Ollama) is
compared with a stream of 16 chunks. ``--general`` measures without the fast way
(server.pass_through: false).

Before it is measured a pair has to say the right words. Each repeat goes through the pairs in another
order, so that what the machine does besides falls on all of them.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from urllib.request import Request, urlopen

import uvloop
import yaml
from attrs import define, field, frozen

from headrace.backends.providers import PROVIDERS as PROVIDERS_BY_NAME
from headrace.contracts.errors import LLMError
from headrace.contracts.messages import LLMMessage
from headrace.contracts.requests import LLMRequest
from headrace.wire import (
    anthropic,
    gemini,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
)
from headrace.wire.assemble import assemble

from ._gateway_load import Crowd, WrongAnswerError
from ._gateway_peers import KEY
from ._processes import Tree, environment, free_port, started
from ._wires_mock import words

_TEXT = "Say something. ".ljust(200, "x")
_WHOLE_TOKENS = 16
_MOST_TOKENS = 129
_STREAMS = 32
_CALLERS = 32


@frozen(kw_only=True)
class Face:
    """Where callers of a format ask, and how; ``stream_path`` is where they ask for a stream."""

    codec: ModuleType
    path: str
    stream_path: str | None = None
    options: Mapping[str, object] = field(factory=dict)

    def request(self, model: str, tokens: int, *, stream: bool) -> tuple[str, bytes]:
        is_text = self.codec is openai_completions
        asked = LLMRequest(
            messages=() if is_text else (LLMMessage(role="user", content=_TEXT),),
            prompt=_TEXT if is_text else None,
            model=model,
            max_tokens=tokens,
            temperature=0.5,
            provider_options=dict(self.options),
        )
        path = self.stream_path if stream and self.stream_path else self.path
        return path.replace("{model}", model), self.codec.write_request(asked, stream=stream)


FACES = {
    "chat": Face(codec=openai_chat, path="/v1/chat/completions"),
    "completions": Face(codec=openai_completions, path="/v1/completions"),
    # Kept responses are the gateway's affair, not translation's.
    "responses": Face(codec=openai_responses, path="/v1/responses", options={"store": False}),
    "messages": Face(codec=anthropic, path="/v1/messages"),
    "gemini": Face(
        codec=gemini,
        path="/v1beta/models/{model}:generateContent",
        stream_path="/v1beta/models/{model}:streamGenerateContent?alt=sse",
    ),
    "ollama": Face(codec=ollama, path="/api/chat"),
}
# A provider that speaks the format, and what its base URL ends with.
PROVIDERS = {
    "openai": ("vllm", "/v1"),
    "openai-responses": ("openai-responses", "/v1"),
    "anthropic": ("anthropic", ""),
    "gemini": ("gemini", "/v1beta"),
    "ollama": ("ollama", ""),
}
PASSED = ("chat", "openai")
Pair = tuple[str, str]


@define(kw_only=True)
class Ask:
    """One pair's request; ``size`` is that of a right answer's body, once one was read."""

    face: Face
    model: str
    tokens: int
    stream: bool
    count: int | None = None

    def bytes(self, key: str) -> bytes:
        path, body = self.face.request(self.model, self.tokens, stream=self.stream)
        return (
            b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\naccept: */*\r\nuser-agent: benchmark\r\n"
            b"authorization: Bearer %b\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (path.encode(), key.encode(), len(body), body)
        )

    def wrong(self, content: bytes) -> str | None:
        if content.count(b"zebra") != self.count:
            return f"{content.count(b'zebra')} words, not {self.count}: ...{content[-2000:]!r}"
        return None

    def learn(self, content: bytes) -> None:
        """Reads an answer as its format says, and how often it holds the word."""
        if self.stream:
            reader = self.face.codec.stream_reader()
            text = assemble([*reader.feed(content), *reader.close()]).text
        else:
            text = self.face.codec.read_response(content).text
        if text != "".join(words(self.tokens)):
            raise WrongAnswerError(f"{self.model}: {text!r}")
        self.count = content.count(b"zebra")


def asks(pair: Pair) -> dict[str, Ask]:
    face, format_name = pair
    kinds = {
        "request": (_WHOLE_TOKENS, False),
        "stream": (1, True),
        "long": (_MOST_TOKENS, True),
    }
    return {
        kind: Ask(
            face=FACES[face],
            model=f"{format_name}-say-{tokens}",
            tokens=tokens,
            stream=stream,
        )
        for kind, (tokens, stream) in kinds.items()
    }


def try_out(port: int, asked: dict[str, Ask]) -> None:
    """Ask once for each, and look whether the answer is right."""
    for ask in asked.values():
        path, body = ask.face.request(ask.model, ask.tokens, stream=ask.stream)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        with urlopen(Request(f"http://127.0.0.1:{port}{path}", body, headers), timeout=30) as reply:
            ask.learn(reply.read())


@contextmanager
def gateway(core: int, mock_port: int, *, general: bool) -> Iterator[tuple[int, Tree]]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        config = {
            "server": {"port": port, "api_keys": [KEY], "pass_through": not general},
            "engine": {"enabled": False},
            "embeddings": {"enabled": False},
            "logging": {"requests": False},
            "records": {"file": str(Path(folder) / "records.jsonl")},
            "backends": [
                {
                    "name": name,
                    "provider": provider,
                    "base_url": f"http://127.0.0.1:{mock_port}/{name}{base}",
                    "models": [f"{name}-say-*"],
                    "api_key": "upstream",
                    "max_concurrent_requests": 1024,
                }
                for name, (provider, base) in PROVIDERS.items()
            ],
        }
        path = Path(folder) / "gateway.yaml"
        path.write_text(yaml.safe_dump(config))
        start = "from headrace.cli.main import main; main()"
        command = [sys.executable, "-c", start, "serve", str(path)]
        log = Path(folder) / "log"
        with started(command, cores={core}, env=environment(), log=log) as process:
            while process.poll() is None:
                try:
                    with urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                        break
                except OSError:
                    continue
            else:
                sys.exit(f"the gateway did not start:\n{log.read_text()[-3000:]}")
            yield port, Tree(root=process.pid)


async def measured(port: int, tree: Tree, asked: dict[str, Ask], requests: int) -> dict[str, float]:
    """CPU microseconds of the gateway."""

    async def cost(kind: str, total: int) -> float:
        before = tree.cpu_s()
        await crowd.again_and_again(asked[kind], total=total)
        return (tree.cpu_s() - before) * 1e6

    async with Crowd(port, _CALLERS, KEY) as crowd:
        for ask in asked.values():  # connections and caches, before anything is counted
            await crowd.again_and_again(ask, total=_CALLERS)
        request = await cost("request", requests)
        short = await cost("stream", requests)
        long = await cost("long", _STREAMS)
    each = short / requests
    return {
        "request": request / requests,
        "stream": each,
        "chunk": (long - each * _STREAMS) / (_STREAMS * (_MOST_TOKENS - 1)),
    }


def ratio(pair: Pair, sample: dict[str, float], passed: dict[str, float], column: str) -> float:
    """``sample`` as a multiple of pass-through in the same repeat.

    Some providers are asked for a stream even where a whole answer is wanted (``asked_whole``): that
    is compared with a stream of as many chunks.
    """
    base = passed[column]
    if column == "request" and not PROVIDERS_BY_NAME[PROVIDERS[pair[1]][0]].asked_whole:
        base = passed["stream"] + (_WHOLE_TOKENS - 1) * passed["chunk"]
    return sample[column] / base


def shown(samples: list[dict[str, float]], ratios: list[float], column: str) -> str:
    found = [sample[column] for sample in samples]
    spread = f"{min(found):.1f}-{max(found):.1f}"
    return f"{statistics.median(found):8.1f} ({spread:>13}) x{statistics.median(ratios):<5.2f}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--face", nargs="+", choices=FACES, default=list(FACES))
    parser.add_argument("--format", nargs="+", choices=PROVIDERS, default=list(PROVIDERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000, help="for a sample")
    parser.add_argument("--general", action="store_true", help="without the fast way")
    parser.add_argument("--most", type=float, help="fail where a ratio is above this")
    return parser.parse_args()


def main() -> None:
    options = _options()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("this needs two cores: one for the gateway, one for the load")
    wanted = [(face, name) for face in options.face for name in options.format]
    pairs = {PASSED: asks(PASSED)} | {pair: asks(pair) for pair in wanted}
    samples: dict[Pair, list[dict[str, float]]] = {}
    os.sched_setaffinity(0, {cores[1]})
    with started([sys.executable, "-m", "benchmarks._wires_mock"], cores={cores[1]}) as mock:
        assert mock.stdout is not None
        mock_port = int(mock.stdout.readline())
        with gateway(cores[0], mock_port, general=options.general) as (port, tree):
            for pair, asked in pairs.items():
                try:
                    try_out(port, asked)
                except (OSError, LLMError, WrongAnswerError) as error:
                    said = error.read()[:200] if hasattr(error, "read") else ""
                    print(f"{' <- '.join(pair)}: left out, {error} {said}")
                else:
                    samples[pair] = []
            order = list(samples)
            for number in range(options.repeats):
                random.shuffle(order)
                for pair in order:
                    sample = uvloop.run(measured(port, tree, pairs[pair], options.requests))
                    samples[pair].append(sample)
                print(f"repeat {number + 1} of {options.repeats} done", flush=True)
    columns = ("request", "stream", "chunk")
    print(f"\n{'face <- backend':32}" + "".join(f"{f'{c}, CPU us':>32}" for c in columns))
    worst = 0.0
    for pair, found in samples.items():
        cells = []
        for column in columns:
            each = zip(found, samples[PASSED], strict=True)
            ratios = [ratio(pair, one, passed, column) for one, passed in each]
            worst = max(worst, statistics.median(ratios))
            cells.append(shown(found, ratios, column))
        print(f"{' <- '.join(pair):32}" + "".join(f"{cell:>32}" for cell in cells))
    print(f"\nat most x{worst:.2f} of pass-through")
    if options.most and worst > options.most:
        sys.exit(f"above x{options.most}")


if __name__ == "__main__":
    main()
