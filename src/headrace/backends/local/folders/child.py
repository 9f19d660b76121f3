"""The child of a folder's engine: one process, one thread, one model.

Around and around: take what has come over the sockets, compute a step for all, hand out what it
brought as one frame a connection. With nothing to compute it sleeps until something comes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from headrace.backends.local.child_side import Peer, Peers, gist, run_child
from headrace.backends.local.folders.computing import Loaded, Loading
from headrace.backends.local.folders.frames import (
    Ask,
    Begun,
    Broken,
    Cancel,
    Conversation,
    Count,
    Counted,
    Embed,
    Failed,
    Hello,
    Output,
    Prompt,
    Score,
    Scores,
    Step,
    Text,
    ToChild,
    Vectors,
)
from headrace.backends.local.folders.hub import folder_of
from headrace.backends.local.folders.kinds import KINDS, kind_of
from headrace.backends.local.folders.whole import Whole, WholeCall
from headrace.backends.local.folders.work import Call, Writing
from headrace.backends.local.thoughts import OPENS
from headrace.contracts.errors import LLMCapabilityError, LLMError, LLMInvalidRequestError

_Peer: TypeAlias = Peer[ToChild]
_PROBE = "headrace_probe"
# The mark that opens a model's reasoning has no more tokens, and the space behind it.
_MARK_TOKENS = 12
_NOT_OF_LOADING = ("engine", "socket", "model", "kind")
_KINDS_OF: Mapping[type, tuple[str, ...]] = {
    Ask: ("generate",),
    Count: ("generate",),
    Embed: ("embed",),
    Score: ("rerank", "classify"),
}


class Engine:
    """The model and those who talk to it."""

    def __init__(self, settings: dict[str, Any]) -> None:
        folder = folder_of(settings["model"], with_code=settings["trust_remote_code"])
        kind = settings["kind"] or kind_of(folder).name
        more = {name: value for name, value in settings.items() if name not in _NOT_OF_LOADING}
        loading = Loading(folder=folder, kind=kind, **more)
        self._loaded = _load(settings["engine"], loading)
        self._kind, self._slots = loading.kind, loading.slots
        self._outputs: dict[int, list[Output]] = {}
        self._whole: Whole | None = None
        if self._loaded.encoder is not None:
            self._whole = Whole(self._loaded, kind, self._computed)
        self._writing: Writing | None = None
        if self._loaded.decoder is not None:
            self._writing = Writing(
                self._loaded,
                slots=loading.slots,
                chunk=loading.chunk,
                brought=self._brought,
                failed=self._failed,
            )
        self._peers: Peers[ToChild] = Peers(
            Path(settings["socket"]),
            ToChild,
            self._hello(),
            on_message=self._heard,
            on_parted=self._part,
        )

    def run(self) -> int:
        """Serve until standard input ends; the exit status, which is not 0 where a step failed."""
        while True:
            if not self._peers.take(wait=not self._has_work):
                return 0
            if not self._has_work:
                continue
            try:
                self._step()
            except Exception as failure:  # noqa: BLE001  what a failed step leaves behind is not known
                sys.stderr.write(f"step failed: {failure}\n")
                for peer in self._peers.all():
                    self._peers.send(peer, Broken(gist(failure)))
                return 1

    @property
    def _has_work(self) -> bool:
        return any(each is not None and each.has_work for each in (self._writing, self._whole))

    def _step(self) -> None:
        if self._writing is not None and self._writing.has_work:
            self._writing.step()
            self._hand_out(self._writing)
        if self._whole is not None and self._whole.has_work:
            self._whole.step()
            for peer in self._peers.all():
                if peer.asked:
                    self._peers.send(peer, Step([]))

    def _heard(self, peer: _Peer, message: ToChild) -> None:
        if isinstance(message, Cancel):
            self._cancel(peer.asked.pop(message.call_id, None))
            return
        try:
            if isinstance(message, Ask):
                self._ask(peer, message)
            elif isinstance(message, Count):
                tokens = len(self._tokens(message.prompt))
                self._peers.send(peer, Counted(message.call_id, tokens))
            else:
                self._compute(peer, message)
        except LLMError as refusal:
            self._fail(peer, message.call_id, refusal)
        except Exception as mistake:  # noqa: BLE001  a tokenizer's errors have no common class
            self._fail(peer, message.call_id, LLMInvalidRequestError(gist(mistake)))

    def _ask(self, peer: _Peer, asked: Ask) -> None:
        if self._writing is None:
            raise self._unable(asked)
        prompt = self._tokens(asked.prompt)
        call = self._writing.add(peer, asked, prompt)
        peer.asked[asked.call_id] = call
        end = self._loaded.tokenizer.text(prompt[-_MARK_TOKENS:]).rstrip()
        self._peers.send(peer, Begun(asked.call_id, len(prompt), end.endswith(OPENS)))

    def _compute(self, peer: _Peer, asked: Embed | Score) -> None:
        if self._whole is None or self._kind not in _KINDS_OF[type(asked)]:
            raise self._unable(asked)
        call = self._whole.add(peer, asked)
        if not call.is_over:
            peer.asked[asked.call_id] = call

    def _computed(self, peer: _Peer, result: Vectors | Scores) -> None:
        peer.asked.pop(result.call_id, None)
        self._peers.send(peer, result)

    def _cancel(self, call: Call | WholeCall | None) -> None:
        if isinstance(call, WholeCall):
            assert self._whole is not None
            self._whole.cancel(call)
        elif call is not None:
            assert self._writing is not None
            self._writing.cancel(call)

    def _tokens(self, prompt: Prompt) -> list[int]:
        loaded = self._loaded
        if isinstance(prompt, Conversation):
            if loaded.template is None:
                raise LLMCapabilityError(
                    "this model's folder has no chat template, so it takes no conversations: ask it "
                    "for a text completion, or put a chat_template.jinja beside its config.json",
                    param="messages",
                )
            text = loaded.template.fill(
                prompt.messages, prompt.tools, prompt.more, continues=prompt.continues
            )
            return loaded.tokenizer.ids(text, special=False)
        if isinstance(prompt, Text):
            return loaded.tokenizer.ids(prompt.text, special=True)
        return list(prompt.ids)

    def _unable(self, asked: Ask | Count | Embed | Score) -> LLMCapabilityError:
        wanted = KINDS[_KINDS_OF[type(asked)][0]].makes
        return LLMCapabilityError(
            f"this model makes {KINDS[self._kind].makes}, not {wanted}: ask another one",
            param="model",
        )

    def _fail(self, peer: _Peer, call_id: int, error: LLMError) -> None:
        told = Failed(call_id, type(error).__name__, error.message, error.param, error.code)
        self._peers.send(peer, told)

    def _brought(self, peer: _Peer, output: Output) -> None:
        self._outputs.setdefault(peer.socket.fileno(), []).append(output)

    def _failed(self, call: Call, error: LLMError) -> None:
        call.owner.asked.pop(call.call_id, None)
        self._fail(call.owner, call.call_id, error)

    def _hand_out(self, writing: Writing) -> None:
        outputs, self._outputs = self._outputs, {}
        running, waiting = writing.running, writing.waiting
        for peer in self._peers.all():
            brought = outputs.get(peer.socket.fileno(), [])
            if brought or peer.asked:
                self._peers.send(peer, Step(brought, running, waiting))
            for output in brought:
                call = peer.asked.get(output.call_id)
                if output.reason is not None and call is not None and call.is_over:
                    del peer.asked[output.call_id]

    def _part(self, peer: _Peer) -> None:
        for call in peer.asked.values():
            self._cancel(call)

    def _hello(self) -> Hello:
        loaded, template = self._loaded, self._loaded.template
        return Hello(
            kind=self._kind,
            context_tokens=loaded.context_tokens,
            slots=self._slots,
            fingerprint=loaded.fingerprint,
            dimensions=loaded.dimensions,
            has_template=template is not None,
            tells_tools=_tells_tools(loaded),
            labels=list(loaded.labels),
            reasons=template is not None and OPENS in template.text,
        )


def _tells_tools(loaded: Loaded) -> bool:
    """Whether the template puts tools into the prompt; some leave them out in silence."""
    if loaded.template is None:
        return False
    function = {"name": _PROBE, "description": "", "parameters": {"type": "object"}}
    messages = [{"role": "user", "content": "Hi"}]
    try:
        said = loaded.template.fill(messages, [{"type": "function", "function": function}], {})
    except LLMInvalidRequestError:  # a template that fails on this may still serve what users ask
        return False
    return _PROBE in said


def _load(engine: str, loading: Loading) -> Loaded:
    if engine == "transformers":
        from headrace.backends.local.folders import transformers_models

        return transformers_models.load(loading)
    from headrace.backends.local.folders import onnx_models

    return onnx_models.load(loading)


if __name__ == "__main__":
    run_child(Engine)
