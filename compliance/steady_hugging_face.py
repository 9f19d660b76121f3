"""``python -m compliance.steady_hugging_face``: TGI's and TEI's specifications judge our requests.

As ``compliance.steady`` does with OpenAI's. The documents are ``tgi.json`` and ``tei.json`` in
``../shared/specs``, beside the checkout, or in the folder that ``--specs`` names.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from compliance.steady import SPECS, Judge, installed, post, serving, told
from headrace import AsyncClient, LLMError, LLMRequest
from headrace.stores.models.store import default_cache
from headrace.traffic.endpoint import EndpointSettings

_SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
}
_TEXT = "The weather in Bergen is"
GENERATIONS: dict[str, dict[str, Any]] = {
    "a prompt alone": {},
    "every setting": {
        "max_tokens": 8,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 20,
        "seed": 7,
        "stop": ("END", "\n\n"),
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.1,
        "logprobs": True,
        "top_logprobs": 3,
    },
    "the likeliest tokens": {"temperature": 0.0, "max_tokens": 1},
    "a schema": {"response_schema": _SCHEMA},
    "what is TGI's alone": {
        "provider_options": {
            "typical_p": 0.5,
            "watermark": True,
            "truncate": 100,
            "decoder_input_details": True,
            "adapter_id": "a",
            "grammar": {"type": "regex", "value": "[a-z]+"},
        }
    },
}
_TRUNCATION: dict[str, object] = {"truncation_direction": "Left"}


def main() -> int:
    """Judge every request; print what is wrong with which."""
    reader = argparse.ArgumentParser(
        prog="python -m compliance.steady_hugging_face", description=__doc__
    )
    reader.add_argument("--specs", type=Path, default=SPECS, help="the folder of both documents")
    folder: Path = reader.parse_args().specs
    missing = [name for name in ("tgi.json", "tei.json") if not (folder / name).is_file()]
    if missing:
        print(f"steady: skipped, there is no {' or '.join(missing)} in {folder}")
        return 0
    if shutil.which("npm") is None:
        print("steady: skipped, npm is not installed (it fetches the judge, @stdy/cli)")
        return 0
    program, bad = installed(default_cache() / "compliance" / "steady"), 0
    for name, ask in (("tgi", _generate), ("tei", _the_rest)):
        with serving(program, folder / f"{name}.json") as base:
            bad += asyncio.run(_judged(f"{name}-native", base, ask))
    said = f"{bad} requests are not valid" if bad else "every request is valid"
    print(f"steady: {said}")
    return 1 if bad else 0


async def _judged(
    provider: str, base: str, ask: Callable[[AsyncClient, Judge], Awaitable[int]]
) -> int:
    control = Judge({})
    path = "/generate" if provider == "tgi-native" else "/embed"
    await post(control, base + path, b'{"inputs": {"no": 1}}')
    await control.aclose()
    if not control.verdicts[0].faults:
        print("steady: it calls a request valid that is not; its verdicts are worth nothing")
        return 1
    judge = Judge({})
    client = AsyncClient(
        "some-model",
        provider=provider,
        base_url=base,
        endpoint=EndpointSettings(retry=None, breaker=None),
        transport=judge,
    )
    async with client:
        bad = await ask(client, judge)
    await judge.aclose()
    return bad


async def _generate(client: AsyncClient, judge: Judge) -> int:
    bad = 0
    for name, settings in GENERATIONS.items():
        request = LLMRequest(messages=(), prompt=_TEXT, **settings)
        with contextlib.suppress(LLMError):  # the judge's answers are made up
            await client.generate(request)
        bad += told(f"tgi-native: {name}, whole", judge)
        with contextlib.suppress(LLMError):
            async for _ in client.stream(request):
                pass
        bad += told(f"tgi-native: {name}, streamed", judge)
    await client.healthcheck()
    return bad + told("tgi-native: models", judge)


async def _the_rest(client: AsyncClient, judge: Judge) -> int:
    texts = ["a", "b"]
    # A call is made anew for each name: it is awaited once.
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "vectors": lambda: client.embed(texts),
        "vectors of token ids": lambda: client.embed(((1, 2), (3,))),  # type: ignore[arg-type]
        "vectors with every setting": lambda: client.embed(
            texts,
            dimensions=8,
            provider_options={"normalize": False, "truncate": True, "prompt_name": "q"}
            | _TRUNCATION,
        ),
        "a ranking": lambda: client.rerank("q", texts),
        "a ranking with every setting": lambda: client.rerank(
            "q", texts, top_n=1, truncate=True, raw_scores=True, provider_options=_TRUNCATION
        ),
        "classes": lambda: client.classify(["a", ("b", "c")]),
        "classes with every setting": lambda: client.classify(
            "a", truncate=True, raw_scores=True, provider_options=_TRUNCATION
        ),
        "its description": client.healthcheck,
    }
    bad = 0
    for name, call in calls.items():
        with contextlib.suppress(LLMError):
            await call()
        bad += told(f"tei-native: {name}", judge)
    return bad


if __name__ == "__main__":
    sys.exit(main())
