"""Batches by the vendors' own SDKs: answered behind everybody's back, each request once."""

from __future__ import annotations

import contextlib
import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from anthropic import Anthropic
from mistralai.client import Mistral
from openai import OpenAI

from gateway.echo import Echo, echoing
from gateway.far import NO_MODEL
from gateway.served import PATIENCE_S, Served, until

CHAT = "/v1/chat/completions"
ENDED = {"completed", "failed", "expired", "cancelled"}


@contextlib.contextmanager
def serving(
    folder: Path, echo: Echo, *, batches: dict[str, object] | None = None, **variables: str
) -> Iterator[Served]:
    config = {
        **NO_MODEL,
        "backends": [echo.backend(max_concurrent_requests=16)],
        "batches": batches or {},
    }
    served = Served(folder, config, **variables)
    try:
        yield served
    finally:
        served.stop()


@pytest.fixture(scope="module")
def echo() -> Iterator[Echo]:
    with echoing() as echo:
        yield echo


@pytest.fixture(scope="module")
def served(echo: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("batches"), echo) as served:
        yield served


@pytest.fixture
def sdk(served: Served) -> Iterator[OpenAI]:
    with client(served) as sdk:
        yield sdk


def client(served: Served, key: str = "unused") -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key=key, max_retries=0)


def line(custom_id: str, text: str, url: str = CHAT, **settings: object) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {**body, **settings}}


def brought(sdk: OpenAI, lines: list[Any]) -> str:
    text = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in lines)
    return sdk.files.create(file=("in.jsonl", text.encode()), purpose="batch").id


def begun(sdk: OpenAI, lines: list[Any], endpoint: Any = CHAT, **settings: Any) -> str:
    file_id = brought(sdk, lines)
    return sdk.batches.create(
        input_file_id=file_id, endpoint=endpoint, completion_window="24h", **settings
    ).id


def ended(sdk: OpenAI, batch_id: str) -> Any:
    return until(
        lambda: batch if (batch := sdk.batches.retrieve(batch_id)).status in ENDED else None
    )


def results(sdk: OpenAI, file_id: str | None) -> dict[str, Any]:
    """The lines of a file by their custom ids; fails where one comes twice."""
    if file_id is None:
        return {}
    lines = [json.loads(each) for each in sdk.files.content(file_id).text.splitlines()]
    found = {each["custom_id"]: each for each in lines}
    assert len(found) == len(lines)
    return found


def said(result: dict[str, Any]) -> str:
    return result["response"]["body"]["choices"][0]["message"]["content"]


def test_every_request_is_answered_and_found_by_its_custom_id(sdk: OpenAI) -> None:
    lines = [line(f"row-{i}", f"text {i}") for i in range(50)]
    batch = ended(sdk, begun(sdk, lines, metadata={"who": "me"}))
    assert batch.status == "completed", batch
    assert (batch.request_counts.total, batch.request_counts.completed) == (50, 50)
    assert batch.metadata == {"who": "me"}
    assert batch.model == "m"
    assert batch.usage.total_tokens == 500
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.error_file_id is None
    found = results(sdk, batch.output_file_id)
    assert {name: said(each) for name, each in found.items()} == {
        f"row-{i}": f"text {i}" for i in range(50)
    }
    assert [*found] == [f"row-{i}" for i in range(50)]  # in the order of the input
    each = found["row-7"]
    assert each["error"] is None
    assert each["response"]["status_code"] == 200
    assert each["response"]["request_id"] == each["id"]
    about = sdk.files.retrieve(batch.output_file_id)
    assert (about.purpose, about.filename) == ("batch_output", f"{batch.id}_output.jsonl")


def test_a_file_may_come_in_chunks_of_unknown_number(served: Served, sdk: OpenAI) -> None:
    lines = [json.dumps(line(f"row-{i}", f"text {i}")) for i in range(3000)]
    opening = (
        b'--edge\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--edge\r\n'
        b'Content-Disposition: form-data; name="file"; filename="in.jsonl"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n"
    )
    text = "\n".join(lines).encode()

    def pieces() -> Iterator[bytes]:
        yield opening
        for first in range(0, len(text), 7001):
            yield text[first : first + 7001]
        yield b"\r\n--edge--\r\n"

    asked = urllib.request.Request(
        f"{served.url}/v1/files",
        data=pieces(),
        headers={"content-type": "multipart/form-data; boundary=edge"},
    )
    assert not asked.has_header("Content-length")
    with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
        about = json.load(answer)
    assert about["bytes"] == len(text)
    assert sdk.files.content(about["id"]).read() == text


def test_a_bad_request_has_an_error_and_the_rest_are_answered(sdk: OpenAI) -> None:
    lines = [
        line("good", "hello"),
        line("refused", "bad thing"),
        line("unknown", "x", model="nobody"),
        line("streamed", "x", stream=True),
        line("wrong", "x", temperature="hot"),
    ]
    batch = ended(sdk, begun(sdk, lines))
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 4)
    assert [*results(sdk, batch.output_file_id)] == ["good"]
    errors = results(sdk, batch.error_file_id)
    statuses = {name: each["response"]["status_code"] for name, each in errors.items()}
    assert statuses == {"refused": 400, "unknown": 404, "streamed": 400, "wrong": 400}
    wrong = errors["wrong"]["response"]["body"]["error"]
    assert wrong["param"] == "temperature"


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([line("a", "x"), "{not json"], "invalid_json_line", 2),
        ([line("a", "x"), line("a", "y")], "duplicate_custom_id", 2),
        ([line("a", "x", url="/v1/embeddings")], "mismatched_url", 1),
        ([], "empty_file", None),
    ],
)
def test_a_file_that_is_no_batch_fails_and_names_its_lines(
    sdk: OpenAI, lines: list[Any], code: str, number: int | None
) -> None:
    batch = ended(sdk, begun(sdk, lines))
    assert batch.status == "failed"
    assert batch.failed_at
    [problem] = batch.errors.data
    assert (problem.code, problem.line) == (code, number)


def test_who_is_busy_is_asked_again(sdk: OpenAI, echo: Echo) -> None:
    batch = ended(sdk, begun(sdk, [line("a", "busy at first")]))
    assert said(results(sdk, batch.output_file_id)["a"]) == "busy at first"
    assert echo.asked["busy at first"] == 2


@pytest.mark.parametrize(
    ("endpoint", "body"),
    [
        ("/v1/completions", {"model": "m", "prompt": "hi"}),
        ("/v1/embeddings", {"model": "m", "input": ["four", "fives"]}),
        ("/v1/responses", {"model": "m", "input": "hi"}),
    ],
)
def test_every_endpoint_is_answered_in_its_form(sdk: OpenAI, endpoint: str, body: Any) -> None:
    asked = {"custom_id": "a", "method": "POST", "url": endpoint, "body": body}
    batch = ended(sdk, begun(sdk, [asked], endpoint))
    assert batch.status == "completed"
    answer = results(sdk, batch.output_file_id)["a"]["response"]["body"]
    objects = {"/v1/completions": "text_completion", "/v1/embeddings": "list"}
    assert answer["object"] == objects.get(endpoint, "response")
    assert batch.usage.input_tokens > 0


def test_a_cancelled_batch_ends_within_a_second(tmp_path: Path) -> None:
    with echoing() as echo, serving(tmp_path, echo) as served, client(served) as sdk:
        first = line("done", "done before")
        batch_id = begun(sdk, [first])
        ended(sdk, batch_id)
        echo.hold()
        batch_id = begun(sdk, [line(f"r{i}", f"never {i}") for i in range(20)])
        until(lambda: echo.open == 8)
        assert sdk.batches.retrieve(batch_id).status == "in_progress"
        assert sdk.batches.cancel(batch_id).status in {"cancelling", "cancelled"}
        batch = ended(sdk, batch_id)
        assert batch.status == "cancelled"
        assert batch.cancelled_at - batch.cancelling_at <= 1
        errors = results(sdk, batch.error_file_id)
        assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
        assert len(errors) == 20
        with pytest.raises(openai.BadRequestError):
            sdk.batches.cancel(batch_id)


def test_a_killed_gateway_goes_on_where_it_was(tmp_path: Path) -> None:
    count = 400
    lines = [line(f"row-{i}", f"text {i}") for i in range(count)]
    with echoing() as echo:
        with serving(tmp_path, echo) as served, client(served) as sdk:
            batch_id = begun(sdk, lines)
            until(lambda: sdk.batches.retrieve(batch_id).request_counts.completed > 60)
            served.process.send_signal(signal.SIGKILL)
            served.process.wait(PATIENCE_S)
            before = sum(echo.asked.values())
            assert before < count
        with serving(tmp_path, echo) as served, client(served) as sdk:
            batch = ended(sdk, batch_id)
            assert batch.status == "completed"
            found = results(sdk, batch.output_file_id)
        assert [*found] == [f"row-{i}" for i in range(count)]
        assert all(said(each) == f"text {name[4:]}" for name, each in found.items())
        # What was on its way when it died was asked again, and nothing else was.
        twice = [text for text, times in echo.asked.items() if times > 1]
        assert len(twice) <= 16, twice
        assert max(echo.asked.values()) <= 2


def test_a_gateway_that_is_stopped_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    with echoing() as echo:
        with serving(tmp_path, echo) as served, client(served) as sdk:
            batch_id = begun(sdk, [line(f"r{i}", f"text {i}") for i in range(30)])
            echo.hold()
            until(lambda: echo.open == 8)
            assert served.stop() == 0
        echo.release()
        with serving(tmp_path, echo) as served, client(served) as sdk:
            batch = ended(sdk, batch_id)
            assert (batch.request_counts.completed, batch.request_counts.failed) == (30, 0)


def test_a_live_request_is_answered_before_those_that_wait(tmp_path: Path) -> None:
    """Of four places one is always left, and whoever comes goes first."""
    with echoing() as echo:
        config = {
            **NO_MODEL,
            "backends": [echo.backend(max_concurrent_requests=4)],
        }
        served = Served(tmp_path, config)
        try:
            with client(served) as sdk:
                echo.hold()
                batch_id = begun(sdk, [line(f"r{i}", f"behind {i}") for i in range(20)])
                until(lambda: echo.open == 3)
                time.sleep(0.2)
                assert echo.open == 3
                with served_chat(served, "in front") as live:
                    until(lambda: echo.asked["in front"] == 1)
                    assert sum(echo.asked.values()) == 4
                    echo.release()
                    assert live() == "in front"
                assert ended(sdk, batch_id).request_counts.completed == 20
                assert echo.most_open <= 4
        finally:
            served.stop()


@contextlib.contextmanager
def served_chat(served: Served, text: str) -> Iterator[Any]:
    """A chat on its way; calling what is given waits for its answer."""
    with contextlib.closing(served.connect()) as connection:
        body = {"model": "m", "messages": [{"role": "user", "content": text}]}
        connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})

        def answer() -> str:
            with connection.getresponse() as response:
                return json.loads(response.read())["choices"][0]["message"]["content"]

        yield answer


def test_several_workers_have_one_that_does_the_work(tmp_path: Path) -> None:
    with echoing() as echo, serving(tmp_path, echo, HEADRACE_WORKERS="2") as served:
        with client(served) as sdk:
            # Larger than any other request may be.
            filler = "x" * 40_000
            lines = [line(f"row-{i}", f"{i} {filler}") for i in range(1000)]
            batch = ended(sdk, begun(sdk, lines))
            assert batch.request_counts.completed == 1000
            assert len(results(sdk, batch.output_file_id)) == 1000
        assert max(echo.asked.values()) == 1


def test_nobody_sees_what_is_another_keys(tmp_path: Path) -> None:
    with echoing() as echo, serving(tmp_path, echo, HEADRACE_API_KEYS="one,two") as served:
        with client(served, "one") as mine, client(served, "two") as other:
            batch_id = begun(mine, [line("a", "secret")])
            batch = ended(mine, batch_id)
            assert batch.status == "completed"
            assert [each.id for each in mine.batches.list()] == [batch_id]
            assert not other.batches.list().data
            assert not other.files.list().data
            for what in (
                lambda: other.batches.retrieve(batch_id),
                lambda: other.files.content(batch.output_file_id),
                lambda: other.files.delete(batch.input_file_id),
                lambda: begun_of(other, batch.input_file_id),
            ):
                with pytest.raises((openai.NotFoundError, openai.BadRequestError)):
                    what()
        kept = b"".join(p.read_bytes() for p in (tmp_path / "batches").rglob("*") if p.is_file())
        assert b"Bearer" not in kept


def begun_of(sdk: OpenAI, file_id: str) -> object:
    return sdk.batches.create(input_file_id=file_id, endpoint=CHAT, completion_window="24h")


def test_files_are_listed_page_by_page_and_deleted(sdk: OpenAI) -> None:
    ids = [brought(sdk, [line("a", f"file {i}")]) for i in range(5)]
    listed = [each.id for each in sdk.files.list(limit=2, purpose="batch")]
    assert listed[:5] == ids[::-1]
    first = sdk.files.retrieve(ids[0])
    assert (first.object, first.purpose, first.filename) == ("file", "batch", "in.jsonl")
    assert first.bytes == len(sdk.files.content(ids[0]).content)
    assert first.expires_at == first.created_at + 30 * 24 * 3600
    assert sdk.files.delete(ids[0]).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.retrieve(ids[0])
    short = sdk.files.create(
        file=b"{}", purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert short.expires_at == short.created_at + 3600


def test_batches_are_listed_page_by_page_the_newest_first(sdk: OpenAI) -> None:
    ids = [begun(sdk, [line("a", f"listed {i}")]) for i in range(3)]
    assert [each.id for each in sdk.batches.list(limit=1)][:3] == ids[::-1]
    for each in ids:
        ended(sdk, each)


def test_what_cannot_be_taken_is_refused_by_its_field(served: Served, sdk: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.files.create(file=b"x", purpose="fine-tune")
    assert refused.value.body["param"] == "purpose"  # type: ignore[index]
    with pytest.raises(openai.BadRequestError) as refused:
        begun_of(sdk, "file-none")
    assert refused.value.body["param"] == "input_file_id"  # type: ignore[index]
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.batches.create(input_file_id="f", endpoint="/v1/moderations", completion_window="24h")
    assert refused.value.body["param"] == "endpoint"  # type: ignore[index]
    assert served.post("/v1/files", {"purpose": "batch"}).status == 415
    assert served.get("/v1/batches/batch_none").status == 404


def test_what_is_too_large_or_too_much_is_refused(tmp_path: Path) -> None:
    limits: dict[str, object] = {
        "max_file_bytes": 2000,
        "max_stored_bytes": 3000,
        "max_requests": 3,
        "max_open": 1,
    }
    with echoing() as echo, serving(tmp_path, echo, batches=limits) as served:
        with client(served) as sdk:
            with pytest.raises(openai.APIStatusError) as refused:
                sdk.files.create(file=b"x" * 2001, purpose="batch")
            assert refused.value.status_code == 413
            batch = ended(sdk, begun(sdk, [line(f"{i}", "x") for i in range(4)]))
            assert batch.errors.data[0].code == "too_many_requests"
            sdk.files.create(file=b"x" * 2000, purpose="batch")
            with pytest.raises(openai.APIStatusError) as refused:
                sdk.files.create(file=b"x" * 1000, purpose="batch")
            assert refused.value.status_code == 413
            echo.hold()
            file_id = batch.input_file_id
            for each in sdk.files.list():
                if each.id != file_id:
                    sdk.files.delete(each.id)
            running = begun(sdk, [line("a", "x")])
            with pytest.raises(openai.RateLimitError):
                begun_of(sdk, file_id)
            with pytest.raises(openai.BadRequestError) as in_use:
                sdk.files.delete(sdk.batches.retrieve(running).input_file_id)
            assert in_use.value.code == "file_in_use"
            echo.release()
            ended(sdk, running)
        assert not list((tmp_path / "batches" / "incoming").iterdir())


def test_a_second_gateway_leaves_the_first_ones_batches_alone(
    served: Served, echo: Echo, tmp_path: Path
) -> None:
    folder = str(served.log_path.parent / "batches")
    with serving(tmp_path, echo, HEADRACE_BATCHES__FOLDER=folder) as second:
        refused = second.get("/v1/batches")
        assert refused.status == 503
        assert refused.error["code"] == "batches_elsewhere"
        assert second.get("/health").status == 200
    assert served.get("/v1/batches").status == 200


def test_a_gateway_without_batches_says_so(tmp_path: Path) -> None:
    with echoing() as echo, serving(tmp_path, echo, batches={"enabled": False}) as served:
        assert served.get("/v1/batches").error["code"] == "batches_disabled"
        assert served.get("/v1/files/x").status == 404
    assert not (tmp_path / "batches").exists()


# Anthropic's


@pytest.fixture
def claude(served: Served) -> Iterator[Anthropic]:
    with Anthropic(base_url=served.url, api_key="unused", max_retries=0) as claude:
        yield claude


def messages(*texts: str) -> list[Any]:
    return [
        {
            "custom_id": f"row-{i}",
            "params": {
                "model": "m",
                "max_tokens": 16,
                "messages": [{"role": "user", "content": text}],
            },
        }
        for i, text in enumerate(texts)
    ]


def test_message_batches_by_anthropics_sdk(claude: Anthropic) -> None:
    batches = claude.messages.batches
    batch = batches.create(requests=messages("one", "bad two", "three"))
    assert (batch.type, batch.request_counts.processing) == ("message_batch", 3)
    assert (batch.expires_at - batch.created_at).total_seconds() == 24 * 3600
    until(lambda: batches.retrieve(batch.id).processing_status == "ended")
    batch = batches.retrieve(batch.id)
    counts = batch.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 2, 1)
    found = {each.custom_id: each.result for each in batches.results(batch.id)}
    assert found["row-0"].type == "succeeded"
    assert found["row-0"].message.content[0].text == "one"  # type: ignore[union-attr]
    assert found["row-1"].type == "errored"
    assert found["row-1"].error.error.type == "invalid_request_error"  # type: ignore[union-attr]
    assert batch.id in [each.id for each in batches.list(limit=1)]
    assert batches.delete(batch.id).type == "message_batch_deleted"
    assert batch.id not in [each.id for each in batches.list()]


def test_a_message_batch_that_is_cancelled_says_so_of_each(
    served: Served, claude: Anthropic, echo: Echo
) -> None:
    batches = claude.messages.batches
    echo.hold()
    try:
        batch = batches.create(requests=messages("one", "two"))
        until(lambda: echo.open == 2)
        assert batches.retrieve(batch.id).request_counts.processing == 2
        batches.cancel(batch.id)
        until(lambda: batches.retrieve(batch.id).processing_status == "ended")
    finally:
        echo.release()
    assert batches.retrieve(batch.id).cancel_initiated_at is not None
    assert [each.result.type for each in batches.results(batch.id)] == ["canceled"] * 2


def test_the_openapi_document_lists_the_paths(served: Served) -> None:
    paths = served.get("/openapi.json").json["paths"]
    assert {"/v1/files", "/v1/batches", "/v1/messages/batches", "/v1/batch/jobs"} <= paths.keys()


# Mistral's


def asked(served: Served, method: str, path: str, body: object = None) -> Any:
    reply = served.post(path, body) if method == "POST" else served.ask(method, path)
    assert reply.status == 200, reply.body
    return reply.json


def test_a_job_of_requests_that_came_along_has_its_model_from_the_job(served: Served) -> None:
    told = {
        "endpoint": CHAT,
        "model": "m",
        "requests": [
            {"custom_id": "0", "body": {"messages": [{"role": "user", "content": "cheese"}]}},
            {"body": {"messages": [{"role": "user", "content": "bad wine"}]}},
        ],
        "timeout_hours": 2,
    }
    job = asked(served, "POST", "/v1/batch/jobs", told)
    path = f"/v1/batch/jobs/{job['id']}"
    assert (job["object"], job["total_requests"]) == ("batch", 2)
    until(lambda: asked(served, "GET", path)["status"] == "SUCCESS")
    job = asked(served, "GET", f"{path}?inline=true")
    assert (job["succeeded_requests"], job["failed_requests"]) == (1, 1)
    good, bad = job["outputs"]
    assert said(good) == "cheese"
    assert (bad["custom_id"], bad["response"]["status_code"]) == (None, 400)
    listed = asked(served, "GET", "/v1/batch/jobs?status=SUCCESS&page_size=1")
    assert listed["data"][0]["id"] == job["id"]
    assert asked(served, "DELETE", path)["deleted"]
    assert served.get(path).status == 404


def test_jobs_by_mistrals_sdk(served: Served) -> None:
    text = "\n".join(
        json.dumps(
            {"custom_id": f"{i}", "body": {"messages": [{"role": "user", "content": f"{i}"}]}}
        )
        for i in range(5)
    )
    with Mistral(api_key="unused", server_url=served.url) as sdk:
        file = sdk.files.upload(
            file={"file_name": "in.jsonl", "content": text.encode()}, purpose="batch"
        )
        assert (file.num_lines, file.sample_type, file.size_bytes) == (
            5,
            "batch_request",
            len(text),
        )
        job = sdk.batch.jobs.create(
            input_files=[file.id], endpoint=CHAT, model="m", metadata={"who": "me"}
        )
        until(lambda: sdk.batch.jobs.get(job_id=job.id).status == "SUCCESS")
        job = sdk.batch.jobs.get(job_id=job.id)
        assert (job.total_requests, job.succeeded_requests) == (5, 5)
        lines = sdk.files.download(file_id=job.output_file).read().splitlines()
        assert {said(json.loads(each)) for each in lines} == {str(i) for i in range(5)}
        assert sdk.batch.jobs.list(page_size=1).data[0].id == job.id
        assert sdk.files.list(page_size=1).total >= 2
        assert sdk.files.retrieve(file_id=file.id).deleted is False
        assert sdk.files.delete(file_id=file.id).deleted


def test_the_model_in_the_box_answers_a_batch(gateway: Served) -> None:
    with client(gateway) as sdk:
        model = sdk.models.list().data[0].id
        lines = [line(f"r{i}", "Say hello.", model=model, max_tokens=4) for i in range(6)]
        batch = ended(sdk, begun(sdk, lines))
        assert batch.request_counts.completed == 6
        found = results(sdk, batch.output_file_id)
        assert all(
            each["response"]["body"]["usage"]["completion_tokens"] for each in found.values()
        )
