"""Servers of KServe's protocol that are asked by gRPC, over sockets, through both clients."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from attrs import evolve

from client.faces import FACES
from headrace import (
    AsyncClient,
    Client,
    Inference,
    LLMAuthError,
    LLMBadResponseError,
    LLMCapabilityError,
    LLMContextLengthError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMProviderError,
    LLMRateLimitError,
    LLMTimeoutError,
    LLMUnavailableError,
    tensor_of,
)
from headrace.backends.kserve_grpc import KServeGrpc
from headrace.backends.providers import PROVIDERS, register_provider
from headrace.backends.remote import Remote
from headrace.backends.scheme import by_scheme
from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.inference import InferResult, ModelMetadata, TensorInfo
from headrace.net import channels
from headrace.net.clock import World
from headrace.net.pool import PooledTransport
from headrace.net.scripted import ManualClock, ScriptedAnswer, ScriptedTransport
from headrace.wire import kserve_grpc

KEY = "sk-only-ours-0123456789"
X, Y = tensor_of("x", [1.0, 2.0]), tensor_of("y", [0.5, 0.25])
PATIENCE_S = 30.0
every_face = pytest.mark.parametrize("face", FACES)
INFO = (TensorInfo(name="x", datatype="FP32", shape=(-1,)),)


class Server:
    """Answers by gRPC as ``answers`` say; it sums x and y, and says a text back in capitals.

    ``metadata`` is what came with the last call, ``calls`` how many of ModelInfer there were.
    """

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.answers: dict[str, Callable[[bytes, Any], bytes]] = {
            "ServerLive": lambda _, __: kserve_grpc.write_yes(True),
            "ServerReady": lambda _, __: kserve_grpc.write_yes(True),
            "ModelReady": lambda data, _: kserve_grpc.write_yes(
                kserve_grpc.read_named(data)[0] == "adder"
            ),
            "ModelMetadata": self._tell,
            "RepositoryIndex": lambda _, __: kserve_grpc.write_index([ModelInfo(model_id="adder")]),
            "ModelInfer": self._infer,
        }
        self.metadata: dict[str, str] = {}
        self.requests: list[Any] = []
        self.calls = 0
        self._credentials = credentials
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = grpc.server(
            ThreadPoolExecutor(4), options=[("grpc.max_receive_message_length", -1)]
        )
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._answering(name))
            for name in self.answers
        }
        generic = grpc.method_handlers_generic_handler(kserve_grpc.SERVICE, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        place = f"127.0.0.1:{self.port}"
        if self._credentials is None:
            self.port = self._server.add_insecure_port(place)
        else:
            self.port = self._server.add_secure_port(place, self._credentials)
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def _answering(self, name: str) -> Callable[[bytes, Any], bytes]:
        def answer(data: bytes, context: Any) -> bytes:
            self.metadata = dict(context.invocation_metadata())
            self.calls += name == "ModelInfer"
            return self.answers[name](data, context)

        return answer

    def _tell(self, data: bytes, _: Any) -> bytes:
        name, version = kserve_grpc.read_named(data)
        return kserve_grpc.write_metadata(
            ModelMetadata(name=name, versions=(version or "1",), inputs=INFO, outputs=INFO)
        )

    def _infer(self, data: bytes, _: Any) -> bytes:
        request = kserve_grpc.read_infer(data)
        self.requests.append(request)
        named = {each.name: each for each in request.inputs}
        if "text_input" in named:
            outputs = [
                tensor_of("text_output", [each.upper() for each in named["text_input"].data])
            ]
        elif "sentence" in named:
            count = [[float(len(each)), 1.0] for each in named["sentence"].data]
            outputs = [tensor_of("pooled", count)]
        else:
            both = zip(named["x"].data, named["y"].data, strict=True)
            outputs = [tensor_of("sum", [a + b for a, b in both])]
        return kserve_grpc.write_result(
            InferResult(outputs=tuple(outputs), model_id=request.model, version="3")
        )

    def refuse(self, code: str, words: str, times: int = 10**6) -> None:
        """Answer so many calls with that status."""
        usual = self.answers["ModelInfer"]

        def refusing(data: bytes, context: Any) -> bytes:
            nonlocal times
            times -= 1
            if times < 0:
                return usual(data, context)
            context.abort(getattr(grpc.StatusCode, code), words)
            raise AssertionError

        self.answers["ModelInfer"] = refusing

    def hold(self) -> tuple[threading.Event, threading.Event]:
        """Answer no more; what is set once a call has come, and once it has ended."""
        came, ended = threading.Event(), threading.Event()

        def holding(_: bytes, context: Any) -> bytes:
            context.add_callback(ended.set)
            came.set()
            ended.wait(PATIENCE_S)
            return b""

        self.answers["ModelInfer"] = holding
        return came, ended


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.stop()


def infer(face: str, inputs: Any, model: str = "adder", **settings: Any) -> Any:
    """One call through a client of that kind, which is closed behind it; and its record."""
    records: list[Any] = []
    asked = {"provider": "kserve", "sinks": [records.append], **settings}
    if face == "sync":
        with Client(model, **asked) as client:
            return client.infer(inputs), records

    async def main() -> Any:
        async with AsyncClient(model, **asked) as client:
            return await client.infer(inputs), records

    return asyncio.run(main())


def remote(server: Server, **settings: Any) -> tuple[KServeGrpc, PooledTransport]:
    transport = PooledTransport(tls=settings.pop("tls", None))
    row = settings.pop("provider", PROVIDERS["kserve"])
    base_url = settings.pop("base_url", server.url)
    world = World(transport=transport)
    made = by_scheme(Remote(name="r", provider=row, base_url=base_url, world=world, **settings))
    assert isinstance(made, KServeGrpc)
    return made, transport


def test_a_base_of_http_is_asked_as_before():
    with_http = Remote(
        name="r", provider=PROVIDERS["kserve"], base_url="http://h", world=World(transport=Any)
    )
    assert by_scheme(with_http) is with_http


@every_face
@pytest.mark.parametrize("provider", ["kserve", "triton", "tensorrt-llm", "ovms"])
def test_tensors_are_asked_by_grpc_with_the_key_and_leave_a_record(server, face, provider):
    result, (record,) = infer(face, [X, Y], base_url=server.url, api_key=KEY, provider=provider)
    assert list(result.tensor("sum").data) == [1.5, 2.25]
    assert (result.model_id, result.version) == ("adder", "3")
    assert server.metadata["authorization"] == f"Bearer {KEY}"
    assert (record.operation, record.provider, record.status) == ("inference", provider, 200)
    line = record.timeline
    assert line.queued <= line.sent <= line.first_byte <= line.done


def test_an_endpoint_made_at_run_time_may_be_one(server):
    with Client() as client:
        client.endpoints.create("sums", provider="kserve", base_url=server.url, model="adder")
        assert list(client.infer([X, Y], model="sums").tensor("sum").data) == [1.5, 2.25]


def test_a_text_is_asked_for_as_text_input(server):
    with Client("m", provider="triton", base_url=server.url) as client:
        answer = client.chat("say it", max_tokens=7, stop=("a",))
        assert answer.text == "SAY IT"
        (request,) = server.requests
        assert request.parameters == {"max_tokens": 7, "stop": "a"}
        *_, last = client.stream_chat("again")
    assert last.response.text == "AGAIN"


def test_vectors_come_by_tensors_where_the_row_names_them(server):
    own = Inference(embed_input="sentence", embed_output="pooled")
    register_provider(evolve(PROVIDERS["kserve"], name="vectors", inference=own))
    try:
        with Client("m", provider="vectors", base_url=server.url) as client:
            result = client.embed(["a", "abc"])
    finally:
        del PROVIDERS["vectors"]
    assert [list(each) for each in result.vectors] == [[1.0, 1.0], [3.0, 1.0]]


def test_it_tells_whether_it_is_ready_what_it_has_and_what_a_model_takes(server):
    async def main() -> None:
        backend, transport = remote(server, model="adder")
        assert await backend.is_live()
        assert (await backend.status()).ok
        assert [each.model_id for each in await backend.models()] == ["adder"]
        told = await backend.metadata(None, "7")
        assert (told.name, told.versions, told.inputs) == ("adder", ("7",), INFO)
        status = await evolve(backend, model="other").status()
        assert (status.ok, status.message) == (False, "r says that model 'other' is not ready")
        server.stop()
        status = await backend.status()
        assert not status.ok
        assert "refused" in (status.message or "")
        await transport.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("code", "words", "cls", "status", "transient"),
    [
        ("INVALID_ARGUMENT", "bad shape", LLMInvalidRequestError, 400, False),
        ("FAILED_PRECONDITION", "not so", LLMInvalidRequestError, 400, False),
        ("INVALID_ARGUMENT", "exceeds the context", LLMContextLengthError, 400, False),
        ("UNAUTHENTICATED", "who?", LLMAuthError, 401, False),
        ("PERMISSION_DENIED", "no", LLMAuthError, 403, False),
        ("NOT_FOUND", "unknown model", LLMModelNotFoundError, 404, False),
        ("RESOURCE_EXHAUSTED", "busy", LLMRateLimitError, 429, True),
        (
            "RESOURCE_EXHAUSTED",
            "SERVER: Received message larger than max (9 vs. 4)",
            LLMInvalidRequestError,
            413,
            False,
        ),
        ("UNIMPLEMENTED", "decoupled", LLMCapabilityError, 400, False),
        ("UNAVAILABLE", "loading", LLMUnavailableError, 503, True),
        ("CANCELLED", "shut down", LLMUnavailableError, 503, True),
        ("DEADLINE_EXCEEDED", "slow", LLMTimeoutError, 504, True),
        ("INTERNAL", "broke", LLMProviderError, 500, True),
        ("UNKNOWN", "", LLMProviderError, 500, True),
    ],
)
def test_a_status_of_grpc_is_the_error_that_rest_has_for_it(
    server, code, words, cls, status, transient
):
    server.refuse(code, f"{words} {KEY}" if words else "")
    with pytest.raises(LLMError) as caught:
        infer("sync", [X, Y], base_url=server.url, api_key=KEY, endpoint=no_retries())
    error = caught.value
    assert type(error) is cls
    assert (error.status, error.transient, error.provider) == (status, transient, "kserve")
    assert f"(gRPC status {code})" in error.message
    assert words in error.message
    assert KEY not in f"{error!r} {error.provider_message}"


def no_retries() -> Any:
    from headrace import EndpointSettings

    return EndpointSettings(retry=None)


def soon() -> Any:
    from headrace import EndpointSettings, RetryPolicy

    return EndpointSettings(retry=RetryPolicy(first_delay_s=0.01))


def test_what_may_succeed_later_is_asked_again(server):
    server.refuse("UNAVAILABLE", "loading", times=1)
    result, (record,) = infer("sync", [X, Y], base_url=server.url, endpoint=soon())
    assert list(result.tensor("sum").data) == [1.5, 2.25]
    assert [each.error_kind for each in record.attempts] == ["LLMUnavailableError", None]


def test_a_server_that_comes_back_is_asked_at_once(server):
    async def main() -> None:
        backend, transport = remote(server)
        assert await backend.is_live()
        server.stop()
        with pytest.raises(LLMUnavailableError, match="refused"):
            await backend.is_live()
        server.start()
        assert await backend.is_live()
        await transport.aclose()

    asyncio.run(main())


@every_face
def test_a_time_limit_names_its_phase_and_ends_the_call(server, face):
    _, ended = server.hold()
    with pytest.raises(LLMTimeoutError, match=r"first_byte_s of 0\.2 s ran out"):
        infer(face, [X, Y], base_url=server.url, first_byte_s=0.2, endpoint=no_retries())
    assert ended.wait(PATIENCE_S)


def test_cancelling_it_ends_the_call(server):
    came, ended = server.hold()

    async def main() -> None:
        async with AsyncClient("adder", provider="kserve", base_url=server.url) as client:
            task = asyncio.create_task(client.infer([X, Y]))
            await asyncio.to_thread(came.wait, PATIENCE_S)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, PATIENCE_S)

    asyncio.run(main())


def test_closing_ends_calls_and_lets_no_more_begin(server):
    came, ended = server.hold()

    async def main() -> None:
        backend, transport = remote(server)
        task = asyncio.create_task(backend._call("ModelInfer", b"", marks()))
        await asyncio.to_thread(came.wait, PATIENCE_S)
        await transport.aclose()
        with pytest.raises(LLMUnavailableError, match="our transport was closed"):
            await task
        assert await asyncio.to_thread(ended.wait, PATIENCE_S)
        with pytest.raises(LLMUnavailableError, match="our transport was closed"):
            await backend.is_live()

    asyncio.run(main())


def marks() -> Any:
    from headrace.contracts.record import Marks

    return Marks()


def test_large_tensors_go_and_come(server):
    many = tensor_of("x", [1.0] * 2_000_000)
    result, _ = infer("sync", [many, evolve(many, name="y")], base_url=server.url)
    assert result.tensor("sum").shape == (2_000_000,)


def test_an_answer_larger_than_the_limit_is_refused(server, monkeypatch):
    monkeypatch.setattr(channels, "_MOST_ANSWER_BYTES", 1 << 10)
    many = tensor_of("x", [1.0] * 1000)
    with pytest.raises(LLMBadResponseError, match="larger than 1024 bytes"):
        infer("sync", [many, evolve(many, name="y")], base_url=server.url)
    assert server.calls == 1


def test_an_answer_that_is_no_message_is_said_so(server):
    server.answers["ModelInfer"] = lambda _, __: b"\x0a\xff"
    with pytest.raises(LLMBadResponseError, match="no protocol buffer"):
        infer("sync", [X, Y], base_url=server.url)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "grpc://127.0.0.1"}, "must be grpc://host:port"),
        ({"base_url": "grpc://127.0.0.1:1/v2"}, "must be grpc://host:port"),
        ({"base_url": "grpc://[::1]:0"}, "port 0"),
        ({"provider": "ollama"}, "ollama is not asked by gRPC"),
        ({"provider": "tensorflow"}, "tensorflow is not asked by gRPC"),
        ({"base_url": "grpc://far.example:1", "proxy": "http://p:3128"}, "through a proxy"),
        (
            {"transport": ScriptedTransport(lambda _: ScriptedAnswer(), ManualClock(auto=True))},
            "no channels",
        ),
    ],
)
def test_what_cannot_be_asked_by_grpc_is_refused_by_its_name(settings, words):
    with pytest.raises(LLMInvalidRequestError, match=words):
        infer("sync", [X, Y], **{"base_url": "grpc://127.0.0.1:1", **settings})


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(LLMInvalidRequestError, match=r"pip install 'headrace\[grpc\]'"):
        infer("sync", [X, Y], base_url="grpc://127.0.0.1:1")


def test_grpcs_is_verified_against_the_roots_that_tls_has(tmp_path):
    openssl = (
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    )
    more = ("-keyout", "key", "-out", "pem", "-days", "2", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    try:
        subprocess.run(
            ["openssl", *openssl, *more, *names], cwd=tmp_path, check=True, capture_output=True
        )
    except FileNotFoundError:
        pytest.skip("no openssl binary to make a certificate with")
    pair = ((tmp_path / "key").read_bytes(), (tmp_path / "pem").read_bytes())
    server = Server(grpc.ssl_server_credentials([pair]))
    base_url = server.url.replace("grpc:", "grpcs:")

    async def main() -> None:
        tls = ssl.create_default_context(cafile=str(tmp_path / "pem"))
        backend, transport = remote(server, base_url=base_url, tls=tls)
        assert await backend.is_live()
        await transport.aclose()
        backend, transport = remote(server, base_url=base_url)
        with pytest.raises(LLMUnavailableError, match="CERTIFICATE_VERIFY_FAILED"):
            await backend.is_live()
        await transport.aclose()

    try:
        asyncio.run(main())
    finally:
        server.stop()
