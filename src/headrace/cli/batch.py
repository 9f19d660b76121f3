"""``headrace batch``: hand in a file of requests at a provider's batch API, and fetch what came."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from headrace.cli.output import print_json
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.backends.batches import BatchApi
    from headrace.client.batches import Batches
    from headrace.contracts.batches import Batch, BatchItem

T = TypeVar("T")

Provider = Annotated[
    str, typer.Option("--provider", "-p", help="Whose batch API: openai, anthropic, mistral, ...")
]
BaseUrl = Annotated[
    str | None, typer.Option(help="The address of its API, where it is not the usual one.")
]
BatchId = Annotated[str, typer.Argument(metavar="ID", help="The batch's id.")]
_CHAT = "/v1/chat/completions"
_SOME_FAILED = 3

batch = typer.Typer(
    help="Hand in files of requests at a provider's batch API, and fetch what came.",
    no_args_is_help=True,
)


@batch.command()
def submit(
    file: Annotated[
        Path, typer.Argument(help="A .jsonl file: a line a request, as OpenAI's batches have it.")
    ],
    provider: Provider = "openai",
    base_url: BaseUrl = None,
    model: Annotated[
        str | None, typer.Option(help="The model; that of the file's first line, if left out.")
    ] = None,
) -> None:
    """Hand in FILE as one batch, and print the batch.

    Each line has a custom_id and a body of OpenAI's chat completions, whosever API it is for.
    """
    asked = model or _model_of(file)

    async def hand_in(batches: Batches) -> Batch:
        ids: set[str] = set()
        for item in _items(file, batches.api):
            if item.custom_id in ids:
                raise LLMInvalidRequestError(
                    f"{file}: custom_id {item.custom_id!r} is there twice", param="custom_id"
                )
            ids.add(item.custom_id or "")
        return await batches.submit_items(partial(_items, file, batches.api), ids)

    _print(_with(provider, base_url, asked, hand_in))


@batch.command()
def status(batch_id: BatchId, provider: Provider = "openai", base_url: BaseUrl = None) -> None:
    """Print how a batch stands."""
    _print(_with(provider, base_url, "-", lambda batches: batches.get(batch_id)))


@batch.command()
def fetch(
    batch_id: BatchId,
    output: Annotated[
        str, typer.Option("-o", "--output", help="A file, or - for standard output.")
    ] = "-",
    provider: Provider = "openai",
    base_url: BaseUrl = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the batch has ended.")] = False,
) -> None:
    """Write what came of a batch, a line a request, as its provider tells it.

    Ends with status 3 where some requests have no answer.
    """

    async def take(batches: Batches) -> int:
        found = await (batches.wait(batch_id) if wait else batches.get(batch_id))
        if not found.has_ended:
            raise LLMInvalidRequestError(
                f"batch {batch_id} is {found.phase}; come again when it has ended, or give --wait"
            )
        failed = 0
        with _written(output) as write:
            async with aclosing(batches.api.lines(found)) as lines:
                async for line in lines:
                    failed += batches.api.read_line(line).fate != "succeeded"
                    write(line + b"\n")
        return failed

    if _with(provider, base_url, "-", take):
        raise typer.Exit(_SOME_FAILED)


@batch.command()
def cancel(batch_id: BatchId, provider: Provider = "openai", base_url: BaseUrl = None) -> None:
    """Have no more of a batch done. What was done until then can be fetched."""
    _print(_with(provider, base_url, "-", lambda batches: batches.cancel(batch_id)))


def _with(
    provider: str,
    base_url: str | None,
    model: str,
    work: Callable[[Batches], Awaitable[T]],
) -> T:
    from headrace.client.async_client import AsyncClient

    async def done() -> T:
        async with AsyncClient(model, provider=provider, base_url=base_url) as client:
            return await work(client.batches())

    return asyncio.run(done())


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except OSError as error:
        raise LLMInvalidRequestError(f"{file}: {error.strerror}", param="file") from error


def _items(file: Path, api: BatchApi) -> Iterator[BatchItem]:
    """The requests of ``file``, each as the API's format has it."""
    from attrs import evolve

    from headrace.contracts.record import Marks
    from headrace.wire.openai_batches import read_item
    from headrace.wire.openai_chat import read_request

    for number, line in _lines(file):
        with _placed(file, number):
            item = read_item(line, _CHAT)
            if api.form != "openai":
                request = read_request(item.body).request
                item = evolve(item, body=api.write(request, Marks()))
        yield item


def _model_of(file: Path) -> str:
    from headrace.wire.json import decode_object
    from headrace.wire.openai_batches import read_item

    for number, line in _lines(file):
        with _placed(file, number):
            model = decode_object(read_item(line, _CHAT).body).get("model")
            if not isinstance(model, str) or not model:
                raise LLMInvalidRequestError(
                    f"body.model is {model!r}, must name a model", param="body.model"
                )
        return model
    raise LLMInvalidRequestError(f"{file} has no requests", param="file")


@contextmanager
def _placed(file: Path, number: int) -> Iterator[None]:
    """Errors say which line they are about."""
    try:
        yield
    except LLMInvalidRequestError as error:
        error.message = f"{file}, line {number}: {error.message}"
        error.args = (error.message,)
        raise


@contextmanager
def _written(output: str) -> Iterator[Callable[[bytes], object]]:
    """What writes to ``output``, which has its name only when all is there."""
    if output == "-":
        yield sys.stdout.buffer.write
        sys.stdout.buffer.flush()
        return
    part = Path(output + ".part")
    try:
        with part.open("wb") as file:
            yield file.write
        part.replace(output)
    except OSError as error:
        raise LLMInvalidRequestError(
            f"output is {output!r}, which cannot be written: {error.strerror}", param="output"
        ) from error


def _print(found: Batch) -> None:
    from attrs import asdict

    told = {name: value for name, value in asdict(found).items() if value not in (None, (), "")}
    print_json(told)
