"""The OpenVINO child: one process, one thread, one pipeline that batches whatever comes.

Around and around: take what has come over the sockets, compute one step for all, hand out what it
brought as one frame a connection. With nothing to compute it sleeps until something comes. Speaks
the contract of ``headrace.backends.child`` for its start and end, and ``openvino_frames`` between.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from headrace.backends.local.openvino_frames import (
    Add,
    Broken,
    Hello,
    Refused,
    Step,
    ToChild,
)
from headrace.backends.local.vocabulary import Vocabulary, read_vocabulary
from headrace.net.frames import FrameError, FrameReader, listen, write_frame

if TYPE_CHECKING:
    from types import ModuleType

_BLOCK_TOKENS = 32
# A parent that reads nothing for so long is stuck, and its answers are of no use any more.
_SEND_S = 30.0
_READ_BYTES = 1 << 16


def main() -> None:
    # The engine takes every core that there is; whoever hands its tokens on goes before it.
    os.nice(5)
    settings = json.loads(sys.stdin.buffer.readline())
    # The engine may print to standard output, where only our answer belongs.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        engine = Engine(settings)
    except Exception as failure:  # noqa: BLE001  whatever it was, the parent must hear of it
        answer.write(json.dumps({"error": _shorten(failure)}) + "\n")
        answer.flush()
        os._exit(1)
    try:
        answer.write(json.dumps({"ready": {"socket": settings["socket"]}}) + "\n")
        answer.flush()
    except OSError:  # the parent died while the model was loading
        os._exit(0)
    # Not a return: tearing the pipeline down takes longer than anybody waits for.
    os._exit(engine.run())


@define(eq=False)
class _Answer:
    """One answer under way: whose it is, and the pipeline's handle of it."""

    peer: _Peer
    answer_id: int
    handle: Any
    logprobs: bool


@define(eq=False)
class _Peer:
    """One connection."""

    socket: socket.socket
    reader: FrameReader[ToChild] = field(factory=lambda: FrameReader(ToChild))
    answers: dict[int, _Answer] = field(factory=dict)


class Engine:
    """The pipeline and those who talk to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        path = Path(settings["path"])
        self._vocabulary = read_vocabulary(path)
        self._genai, self._pipeline = _load(path, settings)
        self._hello = _hello(self._vocabulary, self._genai, settings)
        self._peers: dict[int, _Peer] = {}
        self._answers: dict[int, _Answer] = {}
        self._next_id = 0
        self._selector = selectors.DefaultSelector()
        self._listener = listen(Path(settings["socket"]))
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(0, selectors.EVENT_READ)

    def run(self) -> int:
        """Serve until standard input ends; the exit status, which is not 0 where a step failed."""
        pipeline = self._pipeline
        while True:
            busy = pipeline.has_non_finished_requests()
            for key, _ in self._selector.select(0 if busy else None):
                if key.fileobj == 0:
                    if not os.read(0, _READ_BYTES):
                        return 0
                elif key.fileobj is self._listener:
                    self._welcome()
                else:
                    self._listen_to(key.data)
            if not pipeline.has_non_finished_requests():
                continue
            try:
                pipeline.step()
            except Exception as failure:  # noqa: BLE001  no step works after one that has failed
                sys.stderr.write(f"step failed: {failure}\n")
                for peer in list(self._peers.values()):
                    self._send(peer, Broken(_shorten(failure)))
                return 1
            self._hand_out()

    def _welcome(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(_SEND_S)
        peer = _Peer(connection)
        self._peers[connection.fileno()] = peer
        self._selector.register(connection, selectors.EVENT_READ, peer)
        self._send(peer, self._hello)

    def _listen_to(self, peer: _Peer) -> None:
        try:
            data = peer.socket.recv(_READ_BYTES)
            messages = list(peer.reader.feed(data))
        except (OSError, FrameError) as broken:
            sys.stderr.write(f"a connection broke: {broken}\n")
            data, messages = b"", []
        for message in messages:
            if isinstance(message, Add):
                self._add(peer, message)
            elif answer := peer.answers.pop(message.answer_id, None):
                answer.handle.cancel()
        if not data:
            self._part_with(peer)

    def _add(self, peer: _Peer, asked: Add) -> None:
        import numpy
        import openvino

        settings = dict(asked.settings)
        logprobs = bool(settings.get("logprobs"))
        self._next_id += 1
        try:
            config = self._genai.GenerationConfig(**settings)
            config.stop_token_ids = set(self._vocabulary.ends)
            ids = openvino.Tensor(numpy.array([asked.token_ids], dtype=numpy.int64))
            handle = self._pipeline.add_request(self._next_id, ids, config)
        except Exception as refusal:  # noqa: BLE001  the engine's own errors have no common class
            self._send(peer, Refused(asked.answer_id, _shorten(refusal)))
            return
        answer = _Answer(peer, asked.answer_id, handle, logprobs)
        self._answers[self._next_id] = peer.answers[asked.answer_id] = answer

    def _hand_out(self) -> None:
        """Send each peer what the last step brought for it; a step of prompts alone brings nothing,
        but tells that the engine goes on."""
        running = self._genai.GenerationStatus.RUNNING
        brought: dict[int, list[tuple[int, list[int], list[float], str | None]]] = {}
        over = []
        for own_id, answer in self._answers.items():
            handle = answer.handle
            tokens: list[int] = []
            logprobs: list[float] = []
            reason = None
            while handle.can_read():
                for output in handle.read().values():
                    tokens += output.generated_ids
                    if answer.logprobs:
                        logprobs += output.generated_log_probs
                    reason = _REASONS.get(output.finish_reason.name)
            if reason is None and handle.get_status() != running:
                reason = "ignored"
            if reason is not None:
                over.append(own_id)
            is_wanted = answer.peer.answers.get(answer.answer_id) is answer
            if is_wanted and (tokens or reason):
                output = (answer.answer_id, tokens, logprobs, reason)
                brought.setdefault(answer.peer.socket.fileno(), []).append(output)
        for own_id in over:
            answer = self._answers.pop(own_id)
            if answer.peer.answers.get(answer.answer_id) is answer:
                del answer.peer.answers[answer.answer_id]
        for number, peer in list(self._peers.items()):
            if number in brought or peer.answers:
                self._send(peer, Step(brought.get(number, [])))

    def _send(self, peer: _Peer, message: object) -> None:
        try:
            peer.socket.sendall(write_frame(message))
        except OSError as broken:
            sys.stderr.write(f"a connection broke: {broken}\n")
            self._part_with(peer)

    def _part_with(self, peer: _Peer) -> None:
        if self._peers.pop(peer.socket.fileno(), None) is None:
            return
        self._selector.unregister(peer.socket)
        peer.socket.close()
        for answer in peer.answers.values():
            answer.handle.cancel()
        peer.answers.clear()


_REASONS = {"STOP": "stop", "LENGTH": "length"}


def silence_telemetry() -> None:
    """Keep openvino from reporting its use, which it would do each time that it is imported.

    Its telemetry package writes a file into the home folder and asks an address of Google's. Where
    that package cannot be imported, openvino uses a stub of its own that does nothing.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def _load(path: Path, settings: dict[str, Any]) -> tuple[ModuleType, Any]:
    silence_telemetry()
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.max_num_batched_tokens = settings["batched_tokens"]
    scheduler.num_kv_blocks = -(-settings["kv_tokens"] // _BLOCK_TOKENS)
    scheduler.max_num_seqs = settings["slots"]
    # A conversation's next turn begins with all of its last one: 1500 tokens take 0.2 s so
    # instead of 1.3 s.
    scheduler.enable_prefix_caching = True
    properties: dict[str, object] = {}
    if settings["threads"]:
        properties["INFERENCE_NUM_THREADS"] = settings["threads"]
    if settings["exact"]:
        properties |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(path), scheduler, "CPU", properties)
    return openvino_genai, pipeline


def _hello(vocabulary: Vocabulary, genai: ModuleType, settings: dict[str, Any]) -> Hello:
    return Hello(
        pieces=list(vocabulary.pieces),
        context_tokens=vocabulary.context_tokens,
        cache_tokens=settings["kv_tokens"],
        fingerprint=f"openvino-{genai.get_version().partition('-')[0]}",
    )


def _shorten(failure: Exception) -> str:
    """The gist of an engine's error: it comes with the path of its source file."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()]
    return f"{type(failure).__name__}: {' '.join(lines)[-500:] or 'no reason given'}"


if __name__ == "__main__":
    main()
