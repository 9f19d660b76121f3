"""The OpenVINO child: one process, one thread, one pipeline that batches whatever comes.

Around and around: take what has come over the sockets, compute one step for all, hand out what it
brought as one frame a connection. With nothing to compute it sleeps until something comes. Speaks
the contract of ``headrace.backends.child`` for its start and end, and ``openvino_frames`` between.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import define

from headrace.backends.local.child_side import Peer, Peers, gist, run_child
from headrace.backends.local.openvino_frames import (
    Add,
    Broken,
    Hello,
    Refused,
    Step,
    ToChild,
)
from headrace.backends.local.vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    from types import ModuleType

_Peer: TypeAlias = Peer[ToChild]

_BLOCK_TOKENS = 32


@define(eq=False)
class _Answer:
    """One answer under way: whose it is, and the pipeline's handle of it."""

    peer: _Peer
    answer_id: int
    handle: Any
    logprobs: bool


class Engine:
    """The pipeline and those who talk to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        path = Path(settings["path"])
        self._vocabulary = read_vocabulary(path)
        self._genai, self._pipeline = _load(path, settings)
        self._answers: dict[int, _Answer] = {}
        self._next_id = 0
        self._peers: Peers[ToChild] = Peers(
            Path(settings["socket"]),
            ToChild,
            _hello(self._vocabulary, self._genai, settings),
            on_message=self._heard,
            on_parted=_part,
        )

    def run(self) -> int:
        """Serve until standard input ends; the exit status, which is not 0 where a step failed."""
        pipeline = self._pipeline
        while True:
            if not self._peers.take(wait=not pipeline.has_non_finished_requests()):
                return 0
            if not pipeline.has_non_finished_requests():
                continue
            try:
                pipeline.step()
            except Exception as failure:  # noqa: BLE001  no step works after one that has failed
                sys.stderr.write(f"step failed: {failure}\n")
                for peer in self._peers.all():
                    self._peers.send(peer, Broken(gist(failure)))
                return 1
            self._hand_out()

    def _heard(self, peer: _Peer, message: ToChild) -> None:
        if isinstance(message, Add):
            self._add(peer, message)
        elif answer := peer.asked.pop(message.answer_id, None):
            answer.handle.cancel()

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
            self._peers.send(peer, Refused(asked.answer_id, gist(refusal)))
            return
        answer = _Answer(peer, asked.answer_id, handle, logprobs)
        self._answers[self._next_id] = peer.asked[asked.answer_id] = answer

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
            is_wanted = answer.peer.asked.get(answer.answer_id) is answer
            if is_wanted and (tokens or reason):
                output = (answer.answer_id, tokens, logprobs, reason)
                brought.setdefault(answer.peer.socket.fileno(), []).append(output)
        for own_id in over:
            answer = self._answers.pop(own_id)
            if answer.peer.asked.get(answer.answer_id) is answer:
                del answer.peer.asked[answer.answer_id]
        for peer in self._peers.all():
            number = peer.socket.fileno()
            if number in brought or peer.asked:
                self._peers.send(peer, Step(brought.get(number, [])))


def _part(peer: _Peer) -> None:
    for answer in peer.asked.values():
        answer.handle.cancel()


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


if __name__ == "__main__":
    run_child(Engine)
