"""OpenVINO in the box: free text for many at once, from a child process of its own.

The child computes tokens and nothing else. Prompts are made and counted, answers decoded, stop
strings found and context lengths held here.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from importlib.util import find_spec
from itertools import count
from pathlib import Path

from attrs import asdict, evolve, frozen

from headrace.backends.child import Child
from headrace.backends.fit import Fit, echoed
from headrace.backends.local.inbox import Inbox
from headrace.backends.local.openvino_answers import PROVIDER, Answer, Output
from headrace.backends.local.openvino_fit import generation_settings, lacks
from headrace.backends.local.openvino_frames import (
    Add,
    Broken,
    Cancel,
    FromChild,
    Hello,
    Refused,
    Step,
)
from headrace.backends.local.pulse import Pulse
from headrace.backends.local.words import Words
from headrace.backends.providers import LLAMA_CPP_SERVER
from headrace.contracts.capabilities import BackendCapabilities, BackendStatus, ModelInfo
from headrace.contracts.engine_metrics import EngineMetrics
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMProviderError,
    LLMUnavailableError,
)
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest
from headrace.contracts.responses import LLMDelta, Provenance, Usage
from headrace.net.clock import World
from headrace.net.frames import FrameLink, FrameReader, PrivateFolder

log = logging.getLogger(__name__)

_START_S = 600.0
_HELLO_S = 30.0
# The model's other engine answers at once.
_RETRY_AFTER_S = 0.1

TokensOf = Callable[[LLMRequest], Awaitable[Sequence[int]]]
"""Gives the token ids of a request's prompt."""


class EngineLostError(LLMUnavailableError):
    """This engine is gone for the moment; another engine of the same model may answer at once."""


@frozen(kw_only=True)
class OpenVinoSettings:
    """How the engine is started; what is named here is as in LlamaCppSettings.

    The cache of ``kv_tokens`` tokens is made as it is needed, and what is free in it keeps the
    beginnings of earlier prompts. One step computes at most ``batched_tokens`` tokens: with 256
    the longest step of prompts takes 0.17 s, with the engine's own 2048 it takes 0.6 s, and
    everybody's next token waits for it. ``exact`` computes and caches in F32, at half the speed and
    three times the memory, where it would be bfloat16 and 8 bits: for comparing with other engines.
    An engine that has work and reports no step for ``stuck_after_s`` is ended and started again; 0
    lets it be.
    """

    name: str
    path: Path
    slots: int = 32
    kv_tokens: int = 16384
    threads: int = 0
    batched_tokens: int = 256
    exact: bool = False
    stuck_after_s: float = 60.0


def is_installed() -> bool:
    """Whether OpenVINO's packages are here; imports none of them."""
    return find_spec("openvino_genai") is not None


class OpenVino:
    """A Backend: the engine's child process and the socket to it.

    ``tokens_of`` makes the prompt's token ids, by the model's own template and tokenizer.
    """

    def __init__(self, settings: OpenVinoSettings, tokens_of: TokensOf, world: World) -> None:
        self.name = settings.name
        self.context_tokens: int | None = None
        self._settings, self._tokens_of, self._world = settings, tokens_of, world
        self._fit = Fit(settings.name, LLAMA_CPP_SERVER)
        self._folder = PrivateFolder()
        self._socket = self._folder.path / "openvino.sock"
        self._link: FrameLink[FromChild] | None = None
        self._hello: Hello | None = None
        self._answers: dict[int, Answer] = {}
        self._known: dict[int, LLMDelta] = {}
        self._ids = count(1)
        self._greeted: asyncio.Future[None] | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._last_words = ""
        self._pulse = Pulse(world.clock, settings.stuck_after_s, self._computes, self._still)
        self._child = Child(
            f"OpenVINO ({settings.name})",
            [sys.executable, "-m", "headrace.backends.local.openvino_child"],
            {**asdict(settings), "path": str(settings.path), "socket": str(self._socket)},
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
        return self._hello is not None

    @property
    def running(self) -> int:
        """The answers under way."""
        return len(self._answers)

    async def start(self) -> None:
        """Load the model; raises LLMUnavailableError where the engine does not take it."""
        await self._child.start()
        assert self._greeted
        await self._greeted

    def stream(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        """The answer's pieces; closing the generator frees the engine within a step."""
        pieces = self._pieces(request, marks)
        return echoed(pieces, request) if request.echo else pieces

    def _asked(self, request: LLMRequest, marks: Marks) -> LLMRequest:
        """``request`` as it can be carried out here, or an error that names what cannot."""
        marks.backend, marks.provider = self.name, PROVIDER
        lacking = lacks(request)
        if lacking is not None:
            raise LLMCapabilityError(
                f"{self.name} ({PROVIDER}) cannot carry out {lacking!r}; leave it out, or ask "
                "llama.cpp",
                param=lacking,
                provider=PROVIDER,
            )
        return evolve(self._fit.request(request, marks), top_logprobs=None)

    async def count_tokens(self, request: LLMRequest) -> int:
        """The prompt's length in tokens."""
        return len(await self._tokens_of(request))

    async def models(self) -> tuple[ModelInfo, ...]:
        """The one model that it serves."""
        return (ModelInfo(model_id=self.name, max_context_tokens=self.context_tokens),)

    async def status(self) -> BackendStatus:
        """Whether the engine answers now."""
        message = None if self.is_ready else str(self._unreachable())
        return BackendStatus(ok=self.is_ready, message=message, checked_at=Provenance.now_iso())

    def capabilities(self) -> BackendCapabilities:
        """What it is asked for here: free text."""
        return BackendCapabilities(
            streaming=True,
            tool_calling="none",
            json_mode="none",
            vision=False,
            max_context_tokens=self.context_tokens,
            logprobs=True,
        )

    def metrics(self) -> EngineMetrics:
        """What is known of the engine here: it takes all that it is given and does not queue."""
        occupancy = min(1.0, self.running / self._settings.slots)
        return EngineMetrics(
            engine=PROVIDER, running=self.running, queued=0, batch_occupancy=occupancy
        )

    def snapshot(self) -> Mapping[str, object]:
        """The child process: for diagnostics."""
        return {
            "engine": PROVIDER,
            "pid": self._child.pid,
            "restarts": self._child.restarts,
            "ready": self.is_ready,
            "running": self.running,
            "model_path": str(self._settings.path),
            "socket": str(self._socket),
        }

    async def aclose(self) -> None:
        """End the engine."""
        self._pulse.close()
        link, self._link, self._hello = self._link, None, None
        if link is not None:
            link.close()
        await self._child.stop()
        if self._connecting is not None:
            self._connecting.cancel()
        self._fail_all(self._unreachable())
        self._folder.close()

    async def _pieces(self, request: LLMRequest, marks: Marks) -> AsyncGenerator[LLMDelta, None]:
        mine: list[Answer] = []
        try:
            request = self._asked(request, marks)
            hello = self._reachable()
            token_ids = list(await self._tokens_of(request))
            room = self._room(token_ids, hello)
            hello = self._reachable()  # it may have died meanwhile
            assert self._link
            inbox: Inbox[tuple[Answer, Output]] = Inbox()
            most = min(request.max_tokens or room, room)
            opening = LLMDelta(
                model=request.model or self.name,
                response_id=f"chatcmpl-{uuid.uuid4().hex}",
                system_fingerprint=hello.fingerprint,
            )
            for place in range(request.n or 1):
                words = Words(hello.pieces, request.stop)
                answer = Answer(next(self._ids), place, inbox, words, self._known)
                mine.append(answer)
                self._answers[answer.answer_id] = answer
                settings = generation_settings(request, most, place)
                self._link.send(Add(answer.answer_id, token_ids, settings))
            self._pulse.watch()
            marks.sent = self._world.clock.monotonic()
            pending = {answer.answer_id for answer in mine}
            while pending:
                for answer, output in await inbox.take():
                    if marks.first_byte is None:
                        marks.first_byte = self._world.clock.monotonic()
                    for delta in answer.read(output):
                        if answer.begun:
                            yield delta
                        else:
                            answer.begun = True
                            yield evolve(
                                delta,
                                model=opening.model,
                                response_id=opening.response_id,
                                system_fingerprint=opening.system_fingerprint,
                            )
                    if answer.is_over:
                        pending.discard(answer.answer_id)
                        self._forget(answer)
            made = sum(answer.tokens for answer in mine)
            usage = Usage(
                prompt_tokens=len(token_ids),
                completion_tokens=made,
                total_tokens=len(token_ids) + made,
            )
            yield LLMDelta(usage_delta=usage)
        except LLMError as failure:
            failure.provider = failure.provider or PROVIDER
            raise
        finally:
            for answer in mine:
                self._forget(answer)

    def _forget(self, answer: Answer) -> None:
        """Let the engine know that nobody waits any more, if it still computes."""
        if self._answers.pop(answer.answer_id, None) is None:
            return
        if not answer.ended and self._link is not None:
            self._link.send(Cancel(answer.answer_id))

    def _room(self, token_ids: Sequence[int], hello: Hello) -> int:
        """How many tokens the answer may have."""
        vocabulary = len(hello.pieces)
        wrong = next((each for each in token_ids if not 0 <= each < vocabulary), None)
        if wrong is not None:
            raise LLMInvalidRequestError(
                f"the prompt holds the token id {wrong}; this model's are 0 to {vocabulary - 1}",
                param="prompt",
                code="invalid_value",
            )
        context = min(hello.context_tokens, hello.cache_tokens)
        if len(token_ids) >= context:
            raise LLMContextLengthError(
                f"the prompt has {len(token_ids)} tokens, but the context of this model, prompt "
                f"and answer together, is {context} tokens",
                param="messages" if token_ids else "prompt",
            )
        return context - len(token_ids)

    def _arrived(self, said: Mapping[str, object]) -> None:
        loop = asyncio.get_running_loop()
        self._greeted = loop.create_future()
        self._connecting = loop.create_task(self._connect(self._greeted))

    async def _connect(self, greeted: asyncio.Future[None]) -> None:
        try:
            async with asyncio.timeout(_HELLO_S):
                self._link = await FrameLink.connect(
                    self._socket, FrameReader(FromChild), self._heard, self._cut
                )
                await greeted
        except (OSError, TimeoutError) as failure:
            if not greeted.done():
                greeted.set_exception(
                    LLMUnavailableError(f"the OpenVINO child does not answer: {failure}")
                )
            greeted.exception()  # looked at, whether or not anybody waits for it
            self._child.kill()

    def _heard(self, message: FromChild) -> None:
        self._pulse.beat()
        if isinstance(message, Step):
            answers = self._answers
            for output in message.outputs:
                answer = answers.get(output[0])
                if answer is not None:
                    answer.ended = output[3] is not None
                    answer.inbox.put((answer, output))
        elif isinstance(message, Hello):
            self._hello, self._known = message, {}
            self.context_tokens = min(message.context_tokens, message.cache_tokens)
            self._last_words = ""
            if self._greeted is not None and not self._greeted.done():
                self._greeted.set_result(None)
        elif isinstance(message, Refused):
            answer = self._answers.get(message.answer_id)
            if answer is not None:
                answer.ended = True
                answer.inbox.fail(
                    LLMProviderError(
                        f"OpenVINO did not take the request: {message.message}",
                        provider=PROVIDER,
                        transient=False,
                    )
                )
        elif isinstance(message, Broken):
            self._last_words = message.message
            log.error("OpenVINO failed and is being started again: %s", message.message)

    def _computes(self) -> bool:
        return any(not answer.ended for answer in self._answers.values())

    def _still(self) -> None:
        limit_s = self._settings.stuck_after_s
        self._last_words = f"it had work and reported no step for {limit_s:g} s"
        log.error("OpenVINO is stuck and is being ended: %s", self._last_words)
        self._child.kill()

    def _cut(self, broken: Exception | None) -> None:
        """The connection is gone, and so is what was under way on it."""
        if self._link is None:
            return  # it is we who closed it
        self._left()
        if broken is not None:
            log.error("the connection to OpenVINO broke: %s", broken)
        self._child.kill()

    def _left(self) -> None:
        link, self._link, self._hello = self._link, None, None
        if link is not None:
            link.close()
        reason = f": {self._last_words}" if self._last_words else ""
        self._fail_all(
            EngineLostError(
                f"the OpenVINO engine of {self.name} died while it answered{reason}; it is being "
                "started again",
                retry_after_s=_RETRY_AFTER_S,
                provider=PROVIDER,
            )
        )

    def _fail_all(self, error: LLMError) -> None:
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.ended = True
            answer.inbox.fail(error)

    def _reachable(self) -> Hello:
        if self._hello is None:
            raise self._unreachable()
        return self._hello

    def _unreachable(self) -> EngineLostError:
        failure = self._child.failure
        return EngineLostError(
            f"the OpenVINO engine of {self.name} is not running: "
            + (str(failure) if failure else "it is being started"),
            retry_after_s=_RETRY_AFTER_S,
            provider=PROVIDER,
        )
