"""A provider's batch API across HTTP: many requests handed in together, and answered later for less.

Each call here is one exchange and is not repeated: whether it may be is for the caller to know, for
a batch that is begun twice is paid twice.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import aclosing
from secrets import token_hex
from types import ModuleType
from typing import Literal

from attrs import evolve, field, frozen

from headrace.backends.fit import Fit
from headrace.backends.pricing import price_of_batch, told_price
from headrace.backends.remote import Remote
from headrace.backends.row import codec
from headrace.backends.structured import asked, mode_of
from headrace.contracts.batches import Batch, BatchAsked, BatchItem, BatchResult
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMResponse, Usage
from headrace.net.transport import HttpReply, HttpRequest, TimeLimits
from headrace.stores.secret import redact_error
from headrace.wire.losses import lost
from headrace.wire.multipart import write_form
from headrace.wire.openai_files import form_fields, read_file

_MOST_ANSWER_BYTES = 64 << 20
_MOST_LINE_BYTES = 64 << 20
_PIECE_BYTES = 256 << 10
_PAGE = 100
_LONGEST_LOOK_S = 600.0
"""A provider may look through all that it was handed before it answers."""
_MODULES = {
    "openai": "headrace.wire.openai_batches",
    "anthropic": "headrace.wire.anthropic_batches",
    "mistral": "headrace.wire.mistral_batches",
}


@frozen(kw_only=True)
class BatchLimits:
    """What one batch may hold."""

    requests: int
    bytes: int


# https://platform.openai.com/docs/guides/batch, https://docs.mistral.ai/capabilities/batch/,
# https://platform.claude.com/docs/en/build-with-claude/batch-processing
_LIMITS = {
    "openai": BatchLimits(requests=50_000, bytes=200_000_000),
    "anthropic": BatchLimits(requests=100_000, bytes=256_000_000),
    "mistral": BatchLimits(requests=1_000_000, bytes=500_000_000),
}
_PATHS = {"openai": "/batches", "anthropic": "/v1/messages/batches", "mistral": "/batch/jobs"}


@frozen(kw_only=True)
class Told:
    """A batch as it was told of, and how long the provider wants to be left alone."""

    batch: Batch
    retry_after_s: float | None = None


@frozen(kw_only=True)
class BatchApi:
    """The batch API of ``remote``, for requests to ``model``; ``engine`` may have prices of its own."""

    remote: Remote
    model: str
    engine: EngineConfig | None = None
    form: Literal["openai", "anthropic", "mistral"] = field(init=False)

    @form.default
    def _form_of_row(self) -> str:
        form = self.remote.provider.batch
        if form is None:
            raise LLMCapabilityError(
                f"{self.remote.name} ({self.remote.provider.name}) has no batch API; ask it live, or "
                "another provider",
                param="mode",
                provider=self.remote.provider.name,
            )
        return form

    @property
    def limits(self) -> BatchLimits:
        """What one batch may hold."""
        return _LIMITS[self.form]

    @property
    def uploads(self) -> bool:
        """Whether requests are uploaded as a file, before a batch is made of it."""
        return self.form != "anthropic"

    @property
    def keeps_metadata(self) -> bool:
        """Whether a batch can be known again by what was sent along with it."""
        return self.form != "anthropic"

    # Requests and answers

    def write(self, request: LLMRequest, marks: Marks) -> bytes:
        """The body of ``request``, as it goes into a batch."""
        remote, provider = self.remote, self.remote.provider
        mode = mode_of(request, provider, self.model)
        if mode is not None:
            request = asked(request, provider, self.model, mode)
        request = Fit(remote.name, provider).request(request, marks)
        marks.dropped += lost(request, provider.chat.LOSSES, provider.dialect)
        if self.form == "mistral":  # whose jobs name the model for all of their requests
            request = evolve(request, model=None)
        body: bytes = provider.chat.write_request(
            request,
            model=None if self.form == "mistral" else self.model,
            stream=False,
            include_usage=provider.stream_usage,
            dialect=provider.dialect,
        )
        return body

    def read(self, request: LLMRequest, body: bytes, asked_at: float) -> LLMResponse:
        """The answer to ``request`` in a batch that began at ``asked_at``, in Unix seconds."""
        provider = self.remote.provider
        response: LLMResponse = provider.chat.read_response(body, keep=())
        if mode_of(request, provider, self.model) == "tool" and response.tool_calls:
            # As in a live call: the arguments of the forced call are the answer.
            reason = response.finish_reason
            response = evolve(
                response,
                text=response.tool_calls[0].arguments_json,
                tool_calls=(),
                finish_reason="stop" if reason == "tool_calls" else reason,
            )
        usage = response.usage if isinstance(response.usage, Usage) else Usage()
        told = None if self.engine is None else told_price(self.engine, usage)
        return evolve(
            response,
            provider=provider.name,
            price_usd=told
            if told is not None
            else price_of_batch(provider.name, (response.model, self.model), usage, asked_at),
        )

    def error_of(self, result: BatchResult) -> LLMError | None:
        """Why a request has no answer; None where it has one."""
        error: LLMError | None = self._wire.error_of(result)
        if error is not None:
            error.provider = error.provider or self.remote.provider.name
            redact_error(error, (self.remote.key,))
        return error

    def size_of(self, body: bytes) -> int:
        """Bytes that a request takes in a batch, at most."""
        return len(body) + len(self._endpoint) + 256

    # Calls

    async def upload(self, name: str, items: Callable[[], Iterable[BatchItem]]) -> str:
        """The id of the file with ``items`` in it."""
        boundary = f"headrace-{token_hex(16)}"
        kind, whole = write_form(form_fields(), name, b"", boundary=boundary)
        tail = f"\r\n--{boundary}--\r\n".encode()

        def pieces() -> Iterator[bytes]:
            yield whole.removesuffix(tail)
            for item in items():
                yield self._wire.write_item(item, self._endpoint) + b"\n"
            yield tail

        body = await self._exchange("POST", "/files", pieces(), kind)
        return read_file(body).file_id

    async def create(
        self, upload: str | None, mark: str, items: Callable[[], Iterable[BatchItem]]
    ) -> Batch:
        """A batch of what was uploaded, or of ``items``, where nothing is; it can be known by ``mark``."""
        if upload is None:
            pieces = self._in_one_body(items())
        else:
            body: bytes = self._wire.write_create(
                BatchAsked(
                    endpoint=self._endpoint,
                    input_files=(upload,),
                    model=self.model,
                    metadata={"headrace": mark},
                )
            )
            pieces = iter((body,))
        answer = await self._exchange("POST", self._path, pieces, "application/json")
        made: Batch = self._wire.read_batch(answer)
        return made

    async def get(self, batch_id: str) -> Told:
        """How it stands."""
        reply = await self._send("GET", f"{self._path}/{batch_id}")
        async with aclosing(reply):
            body = await self._body_of(reply)
        batch: Batch = self._wire.read_batch(body)
        wait = reply.headers.get("retry-after", "")
        return Told(batch=batch, retry_after_s=float(wait) if wait.isdecimal() else None)

    async def cancel(self, batch_id: str) -> Batch:
        """Have no more of it done."""
        answer = await self._exchange("POST", f"{self._path}/{batch_id}/cancel", None, None)
        batch: Batch = self._wire.read_batch(answer)
        return batch

    async def newest(self) -> AsyncGenerator[Batch, None]:
        """The batches of the account, the newest first."""
        after, page = "", 0
        while True:
            reply = await self._send("GET", self._path + self._list_query(after, page))
            async with aclosing(reply):
                body = await self._body_of(reply)
            batches, more = self._wire.read_batches(body)
            for batch in batches:
                yield batch
            page += 1
            # Mistral tells how many there are in all.
            goes_on = more > page * _PAGE if self.form == "mistral" else more
            if not batches or not goes_on:
                return
            after = batches[-1].batch_id

    async def lines(self, batch: Batch) -> AsyncGenerator[bytes, None]:
        """What became of each of its requests, in no order; those that are missing were not done."""
        for path in self._result_paths(batch):
            reply = await self._send("GET", path)
            async with aclosing(reply):
                if reply.status != 200:
                    await self._body_of(reply)
                async for line in _lines(reply):
                    yield line

    def read_line(self, line: bytes) -> BatchResult:
        """What a line of the results says; raises LLMBadResponseError where it says nothing."""
        result: BatchResult = self._wire.read_result(line)
        return result

    @property
    def _wire(self) -> ModuleType:
        return codec(_MODULES[self.form])

    @property
    def _path(self) -> str:
        return _PATHS[self.form]

    @property
    def _endpoint(self) -> str:
        """What requests of the batch are for, as the provider calls it whatever its address."""
        path = self.remote.provider.chat_path or "/chat/completions"
        return path if path.startswith("/v1/") else f"/v1{path}"

    def _list_query(self, after: str, page: int) -> str:
        if self.form == "mistral":
            return f"?order_by=-created&page_size={_PAGE}&page={page}"
        name = "after_id" if self.form == "anthropic" else "after"
        return f"?limit={_PAGE}" + (f"&{name}={after}" if after else "")

    def _result_paths(self, batch: Batch) -> tuple[str, ...]:
        if self.form == "anthropic":
            # Not its results_url: the key goes nowhere but where it was meant for.
            return (f"{self._path}/{batch.batch_id}/results",)
        files = (batch.output_file, batch.error_file)
        return tuple(f"/files/{file}/content" for file in files if file)

    def _in_one_body(self, items: Iterable[BatchItem]) -> Iterator[bytes]:
        yield b'{"requests":['
        for number, item in enumerate(items):
            yield (b"," if number else b"") + self._wire.write_item(item)
        yield b"]}"

    async def _exchange(
        self, method: str, path: str, pieces: Iterator[bytes] | None, kind: str | None
    ) -> bytes:
        reply = await self._send(method, path, pieces, kind)
        async with aclosing(reply):
            return await self._body_of(reply)

    async def _send(
        self,
        method: str,
        path: str,
        pieces: Iterator[bytes] | None = None,
        kind: str | None = None,
    ) -> HttpReply:
        remote, provider = self.remote, self.remote.provider
        headers = [("accept", "application/json"), *provider.headers.items()]
        if kind is not None:
            headers.append(("content-type", kind))
        if remote.key is not None:
            headers.append((provider.key_header, provider.key_scheme + remote.key.reveal()))
        limits = remote.limits
        try:
            return await remote.world.transport.send(
                HttpRequest(
                    method=method,
                    url=evolve(remote.url("/"), target=remote.url("/").target[:-1] + path),
                    headers=tuple(headers),
                    # In pieces, whatever its length: what the transport has whole it may send twice.
                    body=b"" if pieces is None else _in_pieces(pieces),
                ),
                TimeLimits(
                    connect_s=limits.connect_s,
                    first_byte_s=limits.first_byte_s if pieces is None else _LONGEST_LOOK_S,
                    idle_s=limits.idle_s,
                ),
            )
        except LLMError as error:
            error.provider = error.provider or provider.name
            raise

    async def _body_of(self, reply: HttpReply) -> bytes:
        """The body of a good answer; raises what a bad one says."""
        body = await reply.read(_MOST_ANSWER_BYTES)
        if reply.status != 200:
            provider = self.remote.provider
            error: LLMError = provider.chat.read_error(reply.status, body, reply.headers)
            error.provider = error.provider or provider.name
            redact_error(error, (self.remote.key,))
            if reply.status in (404, 405) and type(error) is not LLMInvalidRequestError:
                error.add_note(f"{self.remote.base_url} may have no batch API")
            raise error
        return body


async def _in_pieces(small: Iterator[bytes]) -> AsyncIterator[bytes]:
    held: list[bytes] = []
    size = 0
    for each in small:
        held.append(each)
        size += len(each)
        if size >= _PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


async def _lines(reply: HttpReply) -> AsyncIterator[bytes]:
    """The lines of a body, of which only one is held at a time."""
    rest = b""
    async for piece in reply:
        whole = rest + piece
        *lines, rest = whole.split(b"\n")
        for line in lines:
            if line.strip():
                yield line
        if len(rest) > _MOST_LINE_BYTES:
            raise LLMBadResponseError(f"a line of results is longer than {_MOST_LINE_BYTES} bytes")
    if rest.strip():
        yield rest
