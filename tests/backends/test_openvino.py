"""OpenVINO beside llama.cpp, both real, with the same model: the same promises, the same words."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from backends.two_engines import ENDLESS, Heard, TwoEngines, ask, hear, until
from headrace.backends.local.openvino import EngineLostError
from headrace.backends.local.openvino_frames import Add, Broken, FromChild
from headrace.contracts.errors import (
    LLMCapabilityError,
    LLMContextLengthError,
    LLMInvalidRequestError,
)
from headrace.contracts.messages import ImagePart, LLMMessage, TextPart, ToolSpec
from headrace.contracts.record import Marks
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.net.frames import FrameLink, FrameReader

QUESTIONS = (
    "Say hello.",
    "What is the capital of France?",
    "Write a haiku about the sea.",
    "List three colours.",
    "What is 2 + 2?",
    "Tell me a story about a fox.",
    "写一首关于春天的诗。",
    "日本の首都はどこですか？",
    "Answer with emoji only: 😀🎉",
    "Quelle est la capitale de l'Italie ?",
    "Write a Python function that adds two numbers.",
    "Explain gravity to a child.",
    "Translate 'good morning' into German.",
    "Who wrote Hamlet?",
    "Name a prime number above 100.",
    "Give me a recipe for bread.",
    "What is the opposite of cold?",
    'Repeat after me: "ünïcödé — ok"',
    "Describe a river in one sentence.",
    "Why is the sky blue?",
)


def test_twenty_greedy_answers_are_those_of_llama_cpp(engines: TwoEngines) -> None:
    async def all_of(backend: Any) -> list[Heard]:
        asked = [hear(backend, ask(question, max_tokens=16)) for question in QUESTIONS]
        return await asyncio.gather(*asked)

    # One by one: in a batch llama.cpp's own sums, and so its near ties, come out differently.
    theirs = [engines.hear(engines.llamacpp, ask(each, max_tokens=16)) for each in QUESTIONS]
    ours = engines.run(all_of(engines.openvino))
    assert [heard.text for heard in ours] == [heard.text for heard in theirs]
    assert [heard.ends for heard in ours] == [heard.ends for heard in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.usage.prompt_tokens == other.usage.prompt_tokens
        assert mine.usage.completion_tokens == other.usage.completion_tokens
        assert mine.marks.provider == "openvino"
        assert other.marks.provider == "llama.cpp"


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt": "Once upon a time", "messages": ()},
        {"prompt": (1, 4093, 198, 19556), "messages": ()},
        {"prompt": "Once upon a time", "messages": (), "echo": True},
        {"provider_options": {"ignore_eos": True}, "max_tokens": 40},
        {"max_tokens": 3},
        {"store": True},
    ],
    ids=["text", "token ids", "echo", "ignore_eos", "length", "dropped"],
)
def test_the_same_request_has_the_same_answer(
    engines: TwoEngines, settings: dict[str, Any]
) -> None:
    if "store" in settings:
        settings = {"provider_options": settings}
    request = LLMRequest(
        **{"messages": ask("Say hello.").messages, "temperature": 0, "max_tokens": 12, **settings}
    )
    theirs = engines.hear(engines.llamacpp, request)
    ours = engines.hear(engines.openvino, request)
    assert ours.text == theirs.text
    assert ours.ends == theirs.ends
    assert ours.usage.total_tokens == theirs.usage.total_tokens
    assert ours.marks.dropped == theirs.marks.dropped
    assert ours.deltas[0].response_id
    assert ours.deltas[0].model == theirs.deltas[0].model or ours.deltas[0].model == "tiny"


def test_log_probabilities_of_the_chosen_tokens_are_those_of_llama_cpp(engines: TwoEngines) -> None:
    request = ask("Only say: yes.", logprobs=True, max_tokens=30)
    theirs = engines.hear(engines.llamacpp, request).logprobs
    ours = engines.hear(engines.openvino, request).logprobs
    assert [each.token_bytes for each in ours] == [each.token_bytes for each in theirs]
    assert [each.logprob for each in ours] == pytest.approx([e.logprob for e in theirs], abs=0.02)
    assert not any(each.top for each in ours)


def test_chinese_and_emoji_come_as_whole_characters(engines: TwoEngines) -> None:
    heard = engines.hear(engines.openvino, ask("Tell me about emoji 😀", max_tokens=60))
    assert re.search("[^\u0000-\u2fff]", heard.text)
    assert "\ufffd" not in heard.text
    assert all(delta.text_delta != "" for delta in heard.deltas if not delta.logprobs)


def test_a_stop_string_across_tokens_ends_the_answer_before_it(engines: TwoEngines) -> None:
    whole = engines.hear(engines.openvino, ask(**ENDLESS | {"max_tokens": 30})).text
    stop = whole[7:16]
    assert whole.index(stop) == 7
    heard = engines.hear(
        engines.openvino, ask(**ENDLESS | {"max_tokens": 30}, stop=("nowhere", stop))
    )
    assert heard.text == whole[:7]
    assert heard.ends == [("stop", stop)]
    assert 0 < (heard.usage.completion_tokens or 0) < 30
    engines.run(until(lambda: engines.openvino.running == 0))


def test_several_answers_differ_by_their_seed_and_come_again_by_it(engines: TwoEngines) -> None:
    request = ask(n=3, seed=7, temperature=1.0, max_tokens=12)
    first, again = (engines.hear(engines.openvino, request) for _ in range(2))
    texts = [first.text_of(index) for index in range(3)]
    assert len(set(texts)) == 3
    assert texts == [again.text_of(index) for index in range(3)]
    assert len(first.ends) == 3
    single = engines.hear(engines.openvino, ask(seed=8, temperature=1.0, max_tokens=12))
    assert single.text == texts[1]


def test_answers_without_a_seed_differ(engines: TwoEngines) -> None:
    request = ask(temperature=1.0, max_tokens=12)
    assert len({engines.hear(engines.openvino, request).text for _ in range(4)}) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 1, "temperature": 1.0},
        {"top_p": 0.0001, "temperature": 1.0},
        {"min_p": 0.9999, "temperature": 1.0},
    ],
    ids=["top_k", "top_p", "min_p"],
)
def test_sampling_from_the_best_alone_is_greedy(
    engines: TwoEngines, settings: dict[str, Any]
) -> None:
    greedy = engines.hear(engines.openvino, ask())
    assert engines.hear(engines.openvino, ask(**settings)).text == greedy.text


@pytest.mark.parametrize("name", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_a_penalty_makes_repetition_rarer(engines: TwoEngines, name: str) -> None:
    settings = ENDLESS | {"max_tokens": 60}

    def variety(**more: Any) -> int:
        text = engines.hear(engines.openvino, ask("Say la la la la", **settings, **more)).text
        return len(set(text.split()))

    assert variety(**{name: 1.9}) > variety()


TOOL = ToolSpec(name="look", input_schema={"type": "object"})
BEYOND: dict[str, dict[str, Any]] = {
    "response_schema": {"response_schema": {"type": "object"}},
    "response_format": {"response_format": {"type": "json_object"}},
    "tools": {"tools": (TOOL,)},
    "tool_choice": {"tool_choice": NamedTool(name="look")},
    "logit_bias": {"logit_bias": {"5": 1.0}},
    "top_logprobs": {"logprobs": True, "top_logprobs": 2},
    "logprobs": {"logprobs": True, "frequency_penalty": 0.5},
    "max_tokens": {"max_tokens": 0},
    "grammar": {"provider_options": {"grammar": 'root ::= "a"'}},
    "return_progress": {"provider_options": {"return_progress": True}},
    "top_p": {"top_p": 0},
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_it_cannot_do_exactly_it_refuses_by_name_and_the_box_asks_llama_cpp(
    engines: TwoEngines, name: str
) -> None:
    request = ask(**BEYOND[name])
    with pytest.raises(LLMCapabilityError, match=name):
        engines.hear(engines.openvino, request)
    assert engines.box.choose(request, 100) is engines.llamacpp
    assert engines.box.choose(ask(), 100) is engines.openvino


@pytest.mark.parametrize(
    "messages",
    [
        (LLMMessage(role="user", content="Hi"), LLMMessage(role="assistant", content="He")),
        (LLMMessage(role="user", content=(ImagePart(data=b"x", media_type="image/png"),)),),
    ],
    ids=["a turn to be continued", "an image"],
)
def test_conversations_of_another_kind_are_llama_cpps(
    engines: TwoEngines, messages: tuple[LLMMessage, ...]
) -> None:
    assert engines.box.choose(LLMRequest(messages=messages), 100) is engines.llamacpp
    in_parts = LLMRequest(messages=(LLMMessage(role="user", content=(TextPart(text="Hi"),)),))
    assert engines.box.choose(in_parts, 100) is engines.openvino


def test_a_prompt_beyond_the_context_is_refused_before_anything_is_sent(
    engines: TwoEngines,
) -> None:
    context = engines.openvino.context_tokens
    assert context == engines.llamacpp.context_tokens
    request = LLMRequest(messages=(), prompt=(5,) * context, max_tokens=1)
    for engine in (engines.llamacpp, engines.openvino):
        with pytest.raises(LLMContextLengthError, match=str(context)):
            engines.hear(engine, request)


def test_a_token_id_that_is_not_the_models_is_refused(engines: TwoEngines) -> None:
    for token_id in (-1, 49152, 10**12):
        request = LLMRequest(messages=(), prompt=(5, token_id), max_tokens=1)
        with pytest.raises(LLMInvalidRequestError, match=str(token_id)):
            engines.hear(engines.openvino, request)


async def _begun(pieces: Any) -> None:
    async for delta in pieces:
        if delta.text_delta:
            return


async def _rest(pieces: Any) -> None:
    async with aclosing(pieces):
        async for _ in pieces:
            pass


def test_leaving_while_it_decodes_frees_the_engine(engines: TwoEngines) -> None:
    async def leave() -> None:
        pieces = [engines.openvino.stream(ask(**ENDLESS), Marks()) for _ in range(4)]
        await asyncio.gather(*map(_begun, pieces))
        assert engines.openvino.running == 4
        await asyncio.gather(*(each.aclose() for each in pieces))
        assert engines.openvino.running == 0
        await until(lambda: cpu_rests(engines.openvino.pid))

    engines.run(leave())


def test_leaving_while_it_reads_the_prompt_frees_the_engine(engines: TwoEngines) -> None:
    async def leave() -> None:
        prompt = tuple(range(100, 7100))
        request = LLMRequest(
            messages=(), prompt=prompt, max_tokens=1000, provider_options={"ignore_eos": True}
        )
        asked = asyncio.create_task(hear(engines.openvino, request))
        await until(lambda: engines.openvino.running == 1)
        await asyncio.sleep(0.3)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert engines.openvino.running == 0
        assert (await hear(engines.openvino, ask())).text
        await until(lambda: cpu_rests(engines.openvino.pid))

    engines.run(leave())


def test_leaving_while_it_waits_for_a_place_in_the_batch_frees_the_engine(
    engines: TwoEngines,
) -> None:
    async def leave() -> None:
        # More than its 32 places.
        asked = [asyncio.create_task(hear(engines.openvino, ask(**ENDLESS))) for _ in range(40)]
        await until(lambda: engines.openvino.running == 40)
        for task in reversed(asked):
            task.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
        assert (await hear(engines.openvino, ask())).text
        await until(lambda: cpu_rests(engines.openvino.pid))

    engines.run(leave())


_seen: dict[int, int] = {}


def cpu_rests(pid: int | None) -> bool:
    """Whether the process computed nothing since it was last asked about."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    now = int(fields[11]) + int(fields[12])
    rests = _seen.get(pid or 0) == now
    _seen[pid or 0] = now
    return rests


def test_a_step_that_fails_fails_those_in_flight_as_retryable_and_the_engine_comes_back(
    engines: TwoEngines,
) -> None:
    openvino = engines.openvino

    async def poison() -> None:
        before = openvino.pid
        told: list[FromChild] = []
        cut: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        socket = Path(str(openvino.snapshot()["socket"]))
        link = await FrameLink.connect(
            socket, FrameReader(FromChild), told.append, lambda e: cut.done() or cut.set_result(e)
        )
        pieces = openvino.stream(ask(**ENDLESS), Marks())
        await _begun(pieces)
        # Beneath our own checks: a token that the model does not have, to be penalised.
        link.send(Add(1, [60_000, 5], {"max_new_tokens": 4, "repetition_penalty": 1.3}))
        with pytest.raises(EngineLostError) as failure:
            await _rest(pieces)
        assert failure.value.transient
        assert failure.value.status == 503
        assert "out of bounds" in str(failure.value)
        await cut
        assert any(isinstance(message, Broken) for message in told)
        assert engines.box.choose(ask(), 100) is engines.llamacpp
        await until(lambda: openvino.is_ready)
        assert openvino.pid != before
        assert (await hear(openvino, ask())).text

    engines.run(poison())


def alone_again(engines: TwoEngines) -> Any:
    """Whether the last burst is over and forgotten: a lone caller is llama.cpp's."""
    return until(lambda: engines.box.choose(ask(), 0) is engines.llamacpp)


def test_a_burst_takes_along_those_that_llama_cpp_has_not_begun_to_answer(
    engines: TwoEngines,
) -> None:
    request = ask(provider_options={"store": True}, max_tokens=12)
    greedy = engines.hear(engines.llamacpp, request).text

    async def burst() -> list[Heard]:
        await alone_again(engines)
        return await asyncio.gather(*(hear(engines.box, request) for _ in range(4)))

    for heard in engines.run(burst()):
        assert heard.marks.provider == "openvino"
        assert heard.marks.dropped == ["store"]
        assert heard.text == greedy


def test_a_burst_leaves_alone_what_llama_cpp_has_begun_or_must_do_itself(
    engines: TwoEngines,
) -> None:
    async def burst() -> None:
        await alone_again(engines)
        begun = Marks()
        pieces = engines.box.stream(
            ask(max_tokens=60, provider_options={"ignore_eos": True}), begun
        )
        await _begun(pieces)
        held = asyncio.create_task(hear(engines.box, ask(logit_bias={"5": 1.0})))
        heard = await asyncio.gather(*(hear(engines.box, ask()) for _ in range(4)))
        assert "openvino" in {each.marks.provider for each in heard}
        await _rest(pieces)
        assert begun.provider == (await held).marks.provider == "llama.cpp"

    engines.run(burst())


def test_one_who_leaves_while_it_is_handed_over_is_gone(engines: TwoEngines) -> None:
    async def leave() -> None:
        await alone_again(engines)
        asked = [asyncio.create_task(hear(engines.box, ask(**ENDLESS))) for _ in range(4)]
        await asyncio.sleep(0)
        for task in asked:
            task.cancel()
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert {type(each) for each in ended} == {asyncio.CancelledError}
        assert engines.openvino.running == 0
        await until(lambda: cpu_rests(engines.openvino.pid))

    engines.run(leave())


def test_killed_under_load_it_comes_back_and_the_box_goes_on(engines: TwoEngines) -> None:
    async def load() -> None:
        openvino, box = engines.openvino, engines.box
        pieces = [openvino.stream(ask(**ENDLESS), Marks()) for _ in range(6)]
        await asyncio.gather(*map(_begun, pieces))
        os.kill(openvino.pid or 0, signal.SIGKILL)
        ended = await asyncio.gather(*map(_rest, pieces), return_exceptions=True)
        assert [type(each) for each in ended] == [EngineLostError] * 6
        heard = await asyncio.gather(*(hear(box, ask()) for _ in range(6)))
        assert {each.marks.provider for each in heard} == {"llama.cpp"}
        await until(lambda: openvino.is_ready)
        heard = await asyncio.gather(*(hear(box, ask()) for _ in range(6)))
        assert "openvino" in {each.marks.provider for each in heard}

    engines.run(load())


def test_while_llama_cpp_is_started_again_openvino_answers(engines: TwoEngines) -> None:
    async def load() -> None:
        before = engines.llamacpp.pid
        os.kill(before or 0, signal.SIGKILL)
        await until(lambda: not engines.llamacpp.is_ready)
        heard = await hear(engines.box, ask())
        assert heard.marks.provider == "openvino"
        assert heard.text
        await until(lambda: engines.llamacpp.is_ready)
        assert engines.llamacpp.pid != before

    engines.run(load())


def test_its_telemetry_is_never_loaded_and_openvino_never_by_us(
    engines: TwoEngines, tmp_path: Path
) -> None:
    assert not [name for name in sys.modules if name.split(".")[0].startswith("openvino")]
    program = (
        "import sys\n"
        "from headrace.backends.local.openvino_child import silence_telemetry\n"
        "silence_telemetry()\n"
        "import openvino_genai, openvino.tools.ovc\n"
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    home = tmp_path / "home"
    home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
    assert list(home.iterdir()) == []
    child = Path(f"/proc/{engines.openvino.pid}/maps")
    assert "openvino" in child.read_text()


def test_it_ends_when_its_parent_is_killed(engines: TwoEngines, box_model: Any) -> None:
    # The contract's other half, that of the supervisor: test_engine_death. Here the child's own.
    settings = {
        "name": "tiny",
        "path": str(box_model.path),
        "socket": str(Path(str(engines.openvino.snapshot()["socket"])).parent / "other.sock"),
        "slots": 2,
        "kv_tokens": 1024,
        "threads": 1,
        "batched_tokens": 256,
        "exact": False,
    }
    child = subprocess.Popen(
        [sys.executable, "-m", "headrace.backends.local.openvino_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdin
    assert child.stdout
    child.stdin.write(json.dumps(settings).encode() + b"\n")
    child.stdin.flush()
    assert "ready" in json.loads(child.stdout.readline())
    child.stdin.close()
    child.stdout.close()
    assert child.wait(30) == 0
