"""How the model in the box likes to be asked: answers that name Paris, by system turn and sampling.

The engine is asked directly, without the gateway's own defaults, for the capital of France in
several phrasings. ``template's own`` is what the model's chat template inserts where a
conversation opens without a system turn.
"""

from __future__ import annotations

import argparse
import asyncio
import json

import uvloop

from benchmarks.engines import LIMITS, start_direct
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpRequest, parse_url
from headrace.stores.models import BOX, ModelStore
from headrace.wire import json as wire_json

QUESTIONS = (
    "What is the capital of France?",
    "What is the capital of France? Answer in one word.",
    "What's the capital of France?",
    "Capital of France?",
    "Tell me the capital of France.",
    "What is the capital of France",
)
TURNS = {
    "template's own": None,
    "empty": "",
    "You are a helpful assistant.": "You are a helpful assistant.",
}
SAMPLINGS = {
    "greedy": {"temperature": 0},
    "0.2, top_p 0.9": {"temperature": 0.2, "top_p": 0.9},
    "0.7": {"temperature": 0.7},
}


async def names_paris(
    transport: PooledTransport,
    url: str,
    key: str,
    system: str | None,
    question: str,
    **sampling: float,
) -> bool:
    opening = [] if system is None else [{"role": "system", "content": system}]
    messages = [*opening, {"role": "user", "content": question}]
    request = HttpRequest(
        method="POST",
        url=parse_url(f"{url}/v1/chat/completions"),
        headers=(("content-type", "application/json"), ("authorization", f"Bearer {key}")),
        body=wire_json.encode({"messages": messages, "max_tokens": 24, **sampling}),
    )
    reply = await transport.send(request, LIMITS)
    answer = json.loads(await reply.read(1 << 20))
    return "Paris" in answer["choices"][0]["message"]["content"]


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=16, help="answers a phrasing, if not greedy")
    options = parser.parse_args()
    transport = PooledTransport()
    process, url, key = await start_direct(ModelStore().find(BOX.name).path)
    try:
        print("system turn                    sampling          answers that name Paris")
        for turn, system in TURNS.items():
            for name, sampling in SAMPLINGS.items():
                samples = 1 if name == "greedy" else options.samples
                asked = [
                    names_paris(transport, url, key, system, question, **sampling)
                    for question in QUESTIONS
                    for _ in range(samples)
                ]
                right = sum(await asyncio.gather(*asked))
                print(f"{turn:<30} {name:<17} {right} of {len(asked)}")
    finally:
        await transport.aclose()
        assert process.stdin
        process.stdin.close()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(main())
