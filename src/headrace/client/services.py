"""OpenAI's services beside its models' answers, as the client asks for them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from attrs import field, frozen

from headrace.client.call import sheet_of
from headrace.client.endpoints import Endpoints
from headrace.contracts.errors import LLMBadResponseError, LLMCapabilityError
from headrace.contracts.images import (
    ImageRequest,
    ImageResult,
    ModerationRequest,
    ModerationResult,
)
from headrace.contracts.protocols import Backend, Relays
from headrace.contracts.record import Marks, Operation
from headrace.contracts.relay import RelayHead, RelayRequest
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import Usage
from headrace.traffic.pieces import Piece, Used, pieces
from headrace.wire import openai_images
from headrace.wire.openai_usage import UsageWatch

_MOST_ANSWER_BYTES = 256 << 20
_LACKS = {
    "audio/speech": "reads nothing aloud",
    "images/generations": "makes no pictures",
    "moderations": "judges nothing",
}


@frozen(kw_only=True)
class Asked:
    """One call for a service; ``write`` gives its body under the model's name there, ``prompt`` is
    what the limits are reckoned by."""

    service: str
    operation: Operation
    write: Callable[[str | None], bytes] = field(repr=False)
    model: str | None
    metadata: dict[str, object] = field(repr=False)
    request_id: str | None
    prompt: str = field(default="", repr=False)


@frozen(kw_only=True)
class Answer:
    """What came of it."""

    content_type: str
    body: bytes = field(repr=False)
    usage: Usage | None = None


async def served(endpoints: Endpoints, asked: Asked) -> Answer:
    """The whole answer."""
    endpoint, model = endpoints.pick_by_model(asked.model, asked.metadata)
    usage: list[Usage | None] = [None]

    async def ask(
        backend: Backend, model: str | None, marks: Marks
    ) -> AsyncGenerator[Piece[RelayHead | bytes] | Used, None]:
        if not isinstance(backend, Relays) or not backend.has_service(asked.service):
            raise LLMCapabilityError(
                f"{backend.name} {_LACKS[asked.service]}; ask another model", param="model"
            )
        request = RelayRequest(
            path=f"/{asked.service}",
            headers=(("accept", "*/*"),),
            write=lambda name: ("application/json", asked.write(name)),
            model=model,
            repeats=True,
            of_model=True,
            metadata=asked.metadata,
        )
        watch: UsageWatch | None = None
        async with aclosing(backend.relay(request, marks)) as coming:
            async for piece in coming:
                if isinstance(piece, RelayHead):
                    watch = UsageWatch(piece.content_type)
                elif watch is not None:
                    watch.feed(piece)
                yield Piece(piece, before_output=isinstance(piece, RelayHead))
        usage[0] = None if watch is None else watch.usage
        yield Used(usage[0])

    run = pieces(
        endpoints.traffic,
        ask,
        LLMRequest(
            messages=(),
            model=model,
            prompt=asked.prompt,
            max_tokens=1,
            metadata=asked.metadata,
            request_id=asked.request_id,
        ),
        endpoint.lane,
        sheet_of(endpoints, asked.operation, asked.model, endpoint.provider, stream=False),
        Marks(),
    )
    body, content_type = bytearray(), "application/octet-stream"
    async with aclosing(run) as coming:
        async for piece in coming:
            if isinstance(piece, RelayHead):
                content_type = piece.content_type
                continue
            body += piece
            if len(body) > _MOST_ANSWER_BYTES:
                raise LLMBadResponseError(f"the answer is larger than {_MOST_ANSWER_BYTES} bytes")
    return Answer(content_type=content_type, body=bytes(body), usage=usage[0])


async def drawn(endpoints: Endpoints, request: ImageRequest) -> ImageResult:
    """Pictures of a text."""
    answer = await served(
        endpoints,
        Asked(
            service="images/generations",
            operation="image",
            write=lambda model: openai_images.write_image_request(request, model=model),
            model=request.model,
            metadata=request.metadata,
            request_id=request.request_id,
            prompt=request.prompt,
        ),
    )
    return openai_images.read_images(answer.body)


async def judged(endpoints: Endpoints, request: ModerationRequest) -> ModerationResult:
    """What is thought of texts, or of a message."""
    answer = await served(
        endpoints,
        Asked(
            service="moderations",
            operation="moderation",
            write=lambda model: openai_images.write_moderation_request(request, model=model),
            model=request.model,
            metadata=request.metadata,
            request_id=request.request_id,
        ),
    )
    return openai_images.read_moderation(answer.body)
