"""llama.cpp in the box: the wheel's own HTTP server in a child process, reached as a provider row."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sys
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

from attrs import asdict, evolve, frozen

from headrace.backends.child import Child
from headrace.backends.local.constrained import Constraints
from headrace.backends.local.forced import as_json_request, must_call
from headrace.backends.local.llamacpp_limits import check_grammars
from headrace.backends.local.pulse import Pulse
from headrace.backends.metrics import ask_metrics
from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.backends.remote import Remote
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMUnavailableError,
)
from headrace.contracts.messages import FilePart, LLMMessage, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest, LLMRequest
from headrace.contracts.responses import EmbeddingResult, LLMDelta, Provenance
from headrace.net.clock import World
from headrace.net.transport import TimeLimits
from headrace.wire import json as wire_json
from headrace.wire import openai_chat

log = logging.getLogger(__name__)

_START_S = 600.0
_PROBE = "headrace_probe"
_RETRY_AFTER_S = 1.0
# Prompts that are put into tokens at once. The engine looks at each idle connection a hundred times
# a second, and 32 of them take 4% of a core while another engine computes.
_TOKENIZED_AT_ONCE = 4
_DEATH_SHOWS_WITHIN_S = 0.25
# A prompt of any length may be computed before the first byte comes.
_LIMITS = TimeLimits(connect_s=5.0, first_byte_s=600.0, idle_s=120.0)
_COUNT_LIMITS = TimeLimits(connect_s=5.0, first_byte_s=30.0, idle_s=30.0)


@frozen(kw_only=True)
class LlamaCppSettings:
    """How the engine is started.

    ``slots`` requests run at once and share a cache of ``kv_tokens`` tokens, of which each sees at
    most the model's own context length. ``threads`` 0 lets the engine choose: one a physical core.
    ``template`` is Jinja text that takes the place of the model's own chat template. An engine for
    ``embeddings`` makes nothing else; no input may be longer than its ``kv_tokens``. One that has
    work, gives nothing for ``stuck_after_s`` and then does not say that it is well either is ended
    and started again; 0 lets it be.
    """

    name: str
    path: Path
    slots: int = 32
    kv_tokens: int = 16384
    threads: int = 0
    http_threads: int = 128
    template: str | None = None
    embeddings: bool = False
    stuck_after_s: float = 60.0


def child_settings(settings: LlamaCppSettings, key: str) -> dict[str, object]:
    """What the child process is told; it answers only callers that show ``key``."""
    return {**asdict(settings), "path": str(settings.path), "key": key}


def _check_parts(request: LLMRequest) -> None:
    """Refuse what the engine would name only as an unsupported type."""
    for message in request.messages:
        if isinstance(message.content, str):
            continue
        if any(isinstance(part, FilePart) for part in message.content):
            raise LLMCapabilityError(
                "The model in the box takes no files or documents; send what they say as text, or "
                "ask another model.",
                param="messages",
            )


class LlamaCpp:
    """A Backend: the engine's child process and the way to it."""

    def __init__(
        self, settings: LlamaCppSettings, world: World, *, limits: TimeLimits = _LIMITS
    ) -> None:
        self.name = settings.name
        self.context_tokens: int | None = None
        self._settings, self._world, self._limits = settings, world, limits
        self._key = secrets.token_urlsafe(24)
        self._remote: Remote | None = None
        self._tells_tools = True
        self._constraints = Constraints()
        self._ready = asyncio.Event()
        self._start_failure: LLMUnavailableError | None = None
        self._tokenizing = asyncio.Semaphore(_TOKENIZED_AT_ONCE)
        self._asked = 0
        self._asking_how: asyncio.Task[None] | None = None
        self._pulse = Pulse(
            world.clock, settings.stuck_after_s, lambda: self._asked > 0, self._still
        )
        self._child = Child(
            f"llama.cpp ({settings.name})",
            [sys.executable, "-m", "headrace.backends.local.llamacpp_child"],
            child_settings(settings, self._key),
            start_s=_START_S,
            on_ready=self._arrived,
            on_gone=self._left,
        )

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        return self._child.pid

    @property
    def is_ready(self) -> bool:
        """Whether it answers now."""
        return self._remote is not None

    @property
    def model_path(self) -> Path:
        """The model's file."""
        return self._settings.path

    async def start(self) -> None:
        """Load the model; requests that come meanwhile wait for it."""
        try:
            await self._child.start()
            self.context_tokens = await self._context()
            self._tells_tools = self._settings.embeddings or await self._template_tells_tools()
        except LLMUnavailableError as failure:
            self._start_failure = failure
            raise
        finally:
            self._ready.set()

    async def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces; closing the generator frees the engine within a step."""
        marks.backend, marks.provider = self.name, LLAMA_CPP_SERVER.name
        check_grammars(request)
        _check_parts(request)
        held = await self._constraints.hold(request)
        await self._ready.wait()
        remote = self._reachable()
        offered = request.tools and request.tool_choice != "none" and not must_call(request)
        # A grammar leaves no room for a call beside the answer that it holds.
        if offered and (held is not None or not self._tells_tools):
            marks.dropped.append("tools")
        if held is None:
            pieces = remote.stream(request, marks)
        else:
            pieces = self._constraints.stream(held, remote.stream, marks)
        try:
            with self._work():
                async with aclosing(pieces):
                    async for delta in pieces:
                        self._pulse.beat()
                        yield delta
        except (LLMUnavailableError, LLMBadResponseError) as error:
            if await self._died_under(remote):
                raise self._died() from error
            raise

    async def vectors(self, request: EmbeddingRequest, marks: Marks) -> EmbeddingResult:
        """One vector for each input, from an engine for embeddings."""
        marks.backend, marks.provider = self.name, LLAMA_CPP_SERVER.name
        await self._ready.wait()
        remote = self._reachable()
        try:
            with self._work():
                return await remote.embed(request, marks)
        except (LLMUnavailableError, LLMBadResponseError) as error:
            if await self._died_under(remote):
                raise self._died() from error
            raise

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens, by the model's own template and tokenizer."""
        return len(await self.prompt_tokens(request))

    async def prompt_tokens(self, request: LLMRequest) -> tuple[int, ...]:
        """The token ids that the engine computes for the prompt."""
        _check_parts(request)
        if must_call(request):
            request = as_json_request(request)
        await self._ready.wait()
        remote = self._reachable()
        if isinstance(request.prompt, tuple):
            return request.prompt
        text: object = request.prompt
        async with self._tokenizing:
            with self._work():
                if text is None:
                    body = openai_chat.write_request(request, stream=False)
                    asked = wire_json.decode_reply(body)
                    text = (await remote.post("/apply-template", asked, _COUNT_LIMITS))["prompt"]
                asked = {"content": text, "add_special": True, "parse_special": True}
                tokens = (await remote.post("/tokenize", asked, _COUNT_LIMITS))["tokens"]
                self._pulse.beat()
        assert isinstance(tokens, list)
        return tuple(tokens)

    async def tokens_of(self, text: str, *, special: bool) -> tuple[tuple[int, bytes], ...]:
        """The tokens of ``text`` by number and what each says; ``special``: with the marks that the
        model wants around a prompt."""
        asked = {"content": text, "add_special": special, "with_pieces": True}
        found = await self._of_tokenizer("/tokenize", asked, "tokens")
        return tuple((each["id"], _bytes_of(each["piece"])) for each in found)

    async def text_of(self, ids: Sequence[int]) -> str:
        """What the tokens of these numbers say together."""
        try:
            return str(await self._of_tokenizer("/detokenize", {"tokens": ids}, "content"))
        except LLMProviderError as error:
            if "range_check" not in error.message:
                raise
            raise LLMInvalidRequestError(
                f"among the token ids are some that {self.name} does not have",
                param="ids",
                code="invalid_value",
            ) from error

    async def _of_tokenizer(self, path: str, asked: Mapping[str, object], name: str) -> Any:
        await self._ready.wait()
        remote = self._reachable()
        async with self._tokenizing:
            with self._work():
                answer = await remote.post(path, asked, _COUNT_LIMITS)
                self._pulse.beat()
        return answer[name]

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        return (ModelInfo(model_id=self.name, max_context_tokens=self.context_tokens),)

    async def status(self) -> BackendStatus:
        """Whether the engine answers now."""
        checked_at = Provenance.now_iso()
        if self._remote is None:
            message = "loading" if not self._ready.is_set() else str(self._unreachable())
            return BackendStatus(ok=False, message=message, checked_at=checked_at)
        return await self._remote.status()

    def capabilities(self) -> BackendCapabilities:
        """What llama.cpp offers with a text model."""
        return BackendCapabilities(
            streaming=True,
            tool_calling="native",
            json_mode="native",
            vision=False,
            max_context_tokens=self.context_tokens,
            logprobs=True,
        )

    async def metrics(self) -> EngineMetrics | None:
        """What the engine tells of itself; ``None`` while there is none."""
        told = None if self._remote is None else await ask_metrics(self._remote)
        if told is None or told.running is None:
            return told
        occupancy = min(1.0, told.running / self._settings.slots)
        return evolve(told, engine=LLAMA_CPP_SERVER.name, batch_occupancy=occupancy)

    def snapshot(self) -> Mapping[str, object]:
        """The child process: for diagnostics."""
        return {
            "engine": LLAMA_CPP_SERVER.name,
            "pid": self._child.pid,
            "restarts": self._child.restarts,
            "ready": self.is_ready,
            "model_path": str(self._settings.path),
            "constrained": self._constraints.counts(),
        }

    async def aclose(self) -> None:
        """End the engine."""
        self._pulse.close()
        if self._asking_how is not None:
            self._asking_how.cancel()
        self._remote = None
        await self._child.stop()

    @contextlib.contextmanager
    def _work(self) -> Iterator[None]:
        """Within the block the engine has something to do."""
        self._asked += 1
        self._pulse.watch()
        try:
            yield
        finally:
            self._asked -= 1

    def _still(self) -> None:
        if self._remote is not None:
            self._asking_how = asyncio.create_task(self._see_whether_it_lives(self._remote))

    async def _see_whether_it_lives(self, remote: Remote) -> None:
        """End an engine that lists its models no more; one that does has much to compute."""
        limit_s = self._settings.stuck_after_s
        try:
            async with asyncio.timeout(limit_s / 2):
                is_well = (await remote.status()).ok
        except TimeoutError:
            is_well = False
        if not is_well and self._remote is remote:
            log.error("%s is stuck and is being ended: nothing for %g s", self._child.name, limit_s)
            self._child.kill()

    def _arrived(self, said: Mapping[str, object]) -> None:
        self._start_failure = None
        self._remote = Remote(
            name=self.name,
            provider=LLAMA_CPP_SERVER,
            base_url=str(said["url"]),
            world=self._world,
            key=self._key,
            limits=self._limits,
        )

    def _left(self) -> None:
        self._remote = None

    def _reachable(self) -> Remote:
        if self._remote is None:
            raise self._unreachable()
        return self._remote

    def _unreachable(self) -> LLMUnavailableError:
        failure = self._start_failure or self._child.failure
        reason = str(failure) if failure else "it is being started again"
        return LLMUnavailableError(
            f"the engine of {self.name} is not running: {reason}",
            retry_after_s=_RETRY_AFTER_S,
            provider=LLAMA_CPP_SERVER.name,
        )

    def _died(self) -> LLMUnavailableError:
        return LLMUnavailableError(
            f"the engine of {self.name} died while it answered; it is being started again",
            retry_after_s=_RETRY_AFTER_S,
            provider=LLAMA_CPP_SERVER.name,
        )

    async def _died_under(self, remote: Remote) -> bool:
        """Whether ``remote``'s engine is gone; its socket may break a moment before that shows."""
        until = self._world.clock.monotonic() + _DEATH_SHOWS_WITHIN_S
        while self._remote is remote and self._world.clock.monotonic() < until:
            await self._world.clock.sleep(0.01)
        return self._remote is not remote

    async def _template_tells_tools(self) -> bool:
        """Whether the model's template puts tools into the prompt; some leave them out in silence."""
        probe = LLMRequest(
            messages=(LLMMessage(role="user", content="Hi"),), tools=(ToolSpec(name=_PROBE),)
        )
        asked = wire_json.decode_reply(openai_chat.write_request(probe, stream=False))
        try:
            told = await self._reachable().post("/apply-template", asked, _COUNT_LIMITS)
        except LLMError:  # a template that fails on this may still serve what users ask
            return True
        return _PROBE in str(told.get("prompt"))

    async def _context(self) -> int | None:
        try:
            listed = await self._reachable().models()
        except LLMProviderError:
            return None
        except LLMError:
            raise
        return listed[0].max_context_tokens if listed else None


def _bytes_of(piece: str | list[int]) -> bytes:
    """What a token says; half a character comes as its bytes."""
    return piece.encode() if isinstance(piece, str) else bytes(piece)
