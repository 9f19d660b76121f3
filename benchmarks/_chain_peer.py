"""Two typed steps by one library, measured inside a process of its own; prints JSON.

Runs in the library's own environment, so it needs nothing but Pydantic, which all of them have. Each
is used as its own documentation has it for many rows, and held to a JSON Schema by the provider.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

_MODEL = "gpt-4o-mini"
_KEY = "sk-0123456789abcdef0123456789abcdef"
_SORT = "What is this message about? {text}"
_ANSWER = "Answer this message about {topic}: {text}"

Row = dict[str, Any]
Work = Callable[[list[Row]], list[Row]]
"""From the rows to what came of each, in whatever order."""


class Topic(BaseModel):
    """What the first step gives."""

    topic: str
    urgent: bool


class Reply(BaseModel):
    """What the second step gives."""

    reply: str
    score: int = Field(ge=1, le=5)


def each_by_itself(one: Callable[[Row], Awaitable[Row]], concurrency: int) -> Work:
    """A loop over the rows for libraries that have none: so many at a time."""

    async def all_of(rows: list[Row]) -> list[Row]:
        places = asyncio.Semaphore(concurrency)

        async def placed(row: Row) -> Row:
            async with places:
                return await one(row)

        return await asyncio.gather(*map(placed, rows))

    return lambda rows: asyncio.run(all_of(rows))


def any_llm(base: str, concurrency: int) -> Work:
    from any_llm import AnyLLM

    client = AnyLLM.create("openai", api_key=_KEY, api_base=base)

    async def ask(prompt: str, kind: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        answer: Any = await client.acompletion(
            model=_MODEL, messages=messages, response_format=kind
        )
        return kind.model_validate_json(answer.choices[0].message.content)

    async def one(row: Row) -> Row:
        first = await ask(_SORT.format(text=row["text"]), Topic)
        second = await ask(_ANSWER.format(topic=first.topic, text=row["text"]), Reply)
        return {"id": row["id"], "output": second.model_dump()}

    return each_by_itself(one, concurrency)


def instructor(base: str, concurrency: int) -> Work:
    import instructor as library
    from openai import AsyncOpenAI

    client = library.from_openai(
        AsyncOpenAI(base_url=base, api_key=_KEY), mode=library.Mode.JSON_SCHEMA
    )

    async def ask(prompt: str, kind: Any) -> Any:
        return await client.chat.completions.create(
            model=_MODEL, messages=[{"role": "user", "content": prompt}], response_model=kind
        )

    async def one(row: Row) -> Row:
        first = await ask(_SORT.format(text=row["text"]), Topic)
        second = await ask(_ANSWER.format(topic=first.topic, text=row["text"]), Reply)
        return {"id": row["id"], "output": second.model_dump()}

    return each_by_itself(one, concurrency)


def pydantic_ai(base: str, concurrency: int) -> Work:
    from pydantic_ai import Agent, NativeOutput
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    model = OpenAIChatModel(_MODEL, provider=OpenAIProvider(base_url=base, api_key=_KEY))
    sort, answer = (
        Agent(model, output_type=NativeOutput(Topic)),
        Agent(model, output_type=NativeOutput(Reply)),
    )

    async def one(row: Row) -> Row:
        first: Any = (await sort.run(_SORT.format(text=row["text"]))).output
        second: Any = (await answer.run(_ANSWER.format(topic=first.topic, text=row["text"]))).output
        return {"id": row["id"], "output": second.model_dump()}

    return each_by_itself(one, concurrency)


def langchain(base: str, concurrency: int) -> Work:
    from langchain_core.prompts import ChatPromptTemplate
    from langchain_core.runnables import RunnablePassthrough
    from langchain_openai import ChatOpenAI

    model = ChatOpenAI(model=_MODEL, base_url=base, api_key=_KEY)

    def step(prompt: str, kind: Any) -> Any:
        held = model.with_structured_output(kind, method="json_schema")
        return ChatPromptTemplate.from_messages([("user", prompt)]) | held

    chain = (
        RunnablePassthrough.assign(sorted=step(_SORT, Topic))
        | RunnablePassthrough.assign(topic=lambda row: row["sorted"].topic)
        | RunnablePassthrough.assign(output=step(_ANSWER, Reply))
    )

    def work(rows: list[Row]) -> list[Row]:
        made = asyncio.run(chain.abatch(rows, config={"max_concurrency": concurrency}))
        return [{"id": each["id"], "output": each["output"].model_dump()} for each in made]

    return work


def curator(base: str, concurrency: int) -> Work:
    from importlib.util import find_spec

    # It counts by a tokenizer that it would download; litellm, which it needs, has that beside it.
    found = find_spec("litellm")
    assert found is not None
    assert found.origin is not None
    tokenizers = Path(found.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tokenizers)
    from bespokelabs import curator as library

    class Sort(library.LLM):  # type: ignore[misc]
        response_format = Topic

        def prompt(self, row: Row) -> str:
            return _SORT.format(text=row["text"])

        def parse(self, row: Row, answer: Any) -> Row:
            return {"id": row["id"], "text": row["text"], "topic": answer.topic}

    class Answer(library.LLM):  # type: ignore[misc]
        response_format = Reply

        def prompt(self, row: Row) -> str:
            return _ANSWER.format(topic=row["topic"], text=row["text"])

        def parse(self, row: Row, answer: Any) -> Row:
            return {"id": row["id"], "output": answer.model_dump()}

    how: dict[str, Any] = {
        "model_name": _MODEL,
        "backend": "openai",
        "backend_params": {
            "base_url": base,
            "api_key": _KEY,
            "max_concurrent_requests": concurrency,
            "max_requests_per_minute": 1_000_000,
            "max_tokens_per_minute": 1_000_000_000,
        },
    }

    def work(rows: list[Row]) -> list[Row]:
        made: Any = Answer(**how)(Sort(**how)(rows).dataset).dataset
        return list(made)

    return work


def distilabel(base: str, concurrency: int) -> Work:
    from distilabel.models import OpenAILLM
    from distilabel.pipeline import Pipeline
    from distilabel.steps import LoadDataFromDicts
    from distilabel.steps.tasks import TextGeneration

    def model(kind: Any) -> Any:
        # Its own structured_output can only force a call of a tool: it hands a mode on as a text
        # that it then does not take.
        named = {"name": kind.__name__, "schema": kind.model_json_schema()}
        held = {"response_format": {"type": "json_schema", "json_schema": named}}
        return OpenAILLM(
            model=_MODEL, base_url=base, api_key=_KEY, generation_kwargs={"extra_body": held}
        )

    def work(rows: list[Row]) -> list[Row]:
        with Pipeline(name="tickets") as pipeline:
            load = LoadDataFromDicts(data=rows, batch_size=concurrency)
            sort = TextGeneration(
                name="sort",
                llm=model(Topic),
                template=_SORT.replace("{", "{{ ").replace("}", " }}"),
                columns=["text"],
                output_mappings={"generation": "topic"},
                input_batch_size=concurrency,
            )
            answer = TextGeneration(
                name="answer",
                llm=model(Reply),
                template=_ANSWER.replace("{", "{{ ").replace("}", " }}"),
                columns=["topic", "text"],
                input_batch_size=concurrency,
            )
            load >> sort >> answer
        made: Any = pipeline.run(use_cache=False)["default"]["train"]
        return [
            {"id": each["id"], "output": Reply.model_validate_json(each["generation"]).model_dump()}
            for each in made
            if each["generation"]
        ]

    return work


PEERS = {
    each.__name__: each
    for each in (any_llm, instructor, pydantic_ai, langchain, curator, distilabel)
}


def cpu_s() -> float:
    """User and system time of this process and of those that it started and that have ended."""
    found = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in found)


def peak_mb() -> float:
    """The most memory that this process held."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    name, plan = sys.argv[1], json.loads(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        # Nobody's cache of an earlier run, and nothing told to anybody.
        os.environ |= {
            "HOME": home,
            "CURATOR_CACHE_DIR": f"{home}/curator",
            "CURATOR_DISABLE_RICH_DISPLAY": "1",
            "TELEMETRY_ENABLED": "false",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "OPENAI_API_KEY": _KEY,
        }
        text = "the lamp on my desk does not light up any more, what can I do?"
        rows = [{"id": n, "text": f"Message {n}: {text}"} for n in range(plan["rows"])]
        work = PEERS[name](plan["base"], plan["concurrency"])
        began, before = time.monotonic(), cpu_s()
        made = work(rows)
        with Path(home, "out.jsonl").open("w") as file:
            for row in made:
                file.write(json.dumps(row) + "\n")
        took = {"s": time.monotonic() - began, "cpu_s": cpu_s() - before}
        right = sum(bool(row["output"].get("reply")) for row in made)
        print("\n" + json.dumps({**took, "peak_mb": peak_mb(), "made": right}))


if __name__ == "__main__":
    main()
