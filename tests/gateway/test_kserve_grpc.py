"""KServe's gRPC service over a socket, by grpcio's own channel and our messages."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.far import NO_MODEL, far
from gateway.served import Served, free_port, run_headrace, until
from headrace import InferRequest, tensor_of
from headrace.gateway.config import Config, ServerConfig
from headrace.gateway.grpc import GrpcServer
from headrace.wire import kserve_grpc

KEY = (("authorization", "Bearer right"),)


@contextlib.contextmanager
def serving(folder: Path, backend: Any, **server: Any) -> Iterator[tuple[Served, grpc.Channel]]:
    port = free_port()
    config = {**NO_MODEL, "server": {"grpc_port": port, **server}, "backends": [backend]}
    served = Served(folder, config)
    try:
        until(lambda: "gRPC service is at" in served.log)
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield served, channel
    finally:
        served.stop()


@pytest.fixture(scope="module")
def one() -> Iterator[Any]:
    with far("one") as (provider,):
        yield provider


@pytest.fixture(scope="module")
def both(
    one: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Served, grpc.Channel]]:
    folder = tmp_path_factory.mktemp("grpc")
    with serving(folder, one.backend(), api_keys=["right"], max_body_bytes=4096) as found:
        yield found


@pytest.fixture
def channel(both: tuple[Served, grpc.Channel]) -> grpc.Channel:
    return both[1]


def call(channel: grpc.Channel, method: str, data: bytes = b"", metadata: Any = KEY) -> bytes:
    answer: bytes = channel.unary_unary(f"/{kserve_grpc.SERVICE}/{method}")(
        data, metadata=metadata, timeout=60
    )
    return answer


def refused(channel: grpc.Channel, method: str, data: bytes = b"", metadata: Any = KEY) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(channel, method, data, metadata)
    return caught.value


def test_health_is_told_without_a_key(channel):
    assert kserve_grpc.read_yes(call(channel, "ServerLive", metadata=()))
    assert kserve_grpc.read_yes(call(channel, "ServerReady", metadata=()))
    assert kserve_grpc.read_yes(call(channel, "ModelReady", kserve_grpc.write_named("m", None)))


def test_it_says_what_it_is_and_what_a_model_takes(channel):
    name, version, extensions = kserve_grpc.read_server(call(channel, "ServerMetadata"))
    assert (name, bool(version)) == ("headrace", True)
    assert "binary_tensor_data" in extensions
    told = kserve_grpc.read_metadata(
        call(channel, "ModelMetadata", kserve_grpc.write_named("m", "1"))
    )
    assert [each.name for each in told.inputs] == ["text_input"]
    listed = kserve_grpc.read_index(call(channel, "RepositoryIndex"))
    assert "m" in [each.model_id for each in listed]


@pytest.mark.parametrize(
    "key", [(("authorization", "Bearer wrong"),), (("x-api-key", "wrong"),), ()]
)
def test_a_wrong_key_is_refused(channel, key):
    for method in ("ServerMetadata", "ModelInfer"):
        error = refused(channel, method, metadata=key)
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert "wrong" not in error.details()


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "INVALID_ARGUMENT", "has no inputs"),
        (b"\x0a\xff", "INVALID_ARGUMENT", "no protocol buffer"),
        (
            kserve_grpc.write_infer(InferRequest(inputs=(tensor_of("text_input", ["x"]),)), "m2"),
            "NOT_FOUND",
            "there is no model 'm2'",
        ),
        (
            kserve_grpc.write_infer(InferRequest(inputs=(tensor_of("pixels", [1]),)), "m"),
            "INVALID_ARGUMENT",
            "takes a BYTES tensor 'text_input'",
        ),
        (
            kserve_grpc.write_infer(InferRequest(inputs=(tensor_of("text_input", ["x"]),)), ""),
            "INVALID_ARGUMENT",
            "model_name is empty",
        ),
    ],
)
def test_what_is_wrong_is_said_with_grpcs_own_codes(channel, data, code, words):
    error = refused(channel, "ModelInfer", data)
    assert error.code() is getattr(grpc.StatusCode, code)
    assert words in error.details()


def test_what_there_is_not_is_unimplemented(channel):
    error = refused(channel, "RepositoryModelLoad")
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_message_that_is_too_large_is_refused(channel):
    error = refused(channel, "ModelInfer", b"\0" * 5000)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("texts", "aside"), [(1, False), (40_000, True)])
def test_a_large_message_is_read_beside_everybody_elses_answers(monkeypatch, texts, aside):
    port, threads, read = free_port(), [], kserve_grpc.read_infer

    def watched(data: bytes) -> InferRequest:
        threads.append(threading.current_thread())
        return read(data)

    async def nobody(scope: Any, receive: Any, send: Any) -> None:
        """Says nothing."""

    async def main() -> None:
        server = GrpcServer(nobody, lambda: Config(server=ServerConfig(grpc_port=port)))
        await server.start()
        asked = InferRequest(inputs=(tensor_of("text_input", ["x"] * texts),))
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                method = channel.unary_unary(f"/{kserve_grpc.SERVICE}/ModelInfer")
                with pytest.raises(grpc.RpcError) as caught:
                    await method(kserve_grpc.write_infer(asked, "m"), timeout=60)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            await server.aclose()

    monkeypatch.setattr(kserve_grpc, "read_infer", watched)
    asyncio.run(main())
    (thread,) = threads
    assert (thread is not threading.main_thread()) is aside


def test_a_call_has_its_line_in_the_log(both):
    served, channel = both
    call(
        channel,
        "ModelMetadata",
        kserve_grpc.write_named("m", None),
        (*KEY, ("x-request-id", "mine")),
    )
    line = served.line_of("mine")
    assert (line["path"], line["status"]) == ("/v2/models/m", 200)


def test_a_port_that_is_taken_is_said_in_one_line(both, one, tmp_path):
    served, _ = both
    config = tmp_path / "gateway.yaml"
    taken = both[0].log.partition("gRPC service is at 127.0.0.1:")[2].split('"')[0]
    backend = one.backend()
    import yaml

    config.write_text(
        yaml.safe_dump({**NO_MODEL, "server": {"grpc_port": int(taken)}, "backends": [backend]})
    )
    done = run_headrace("serve", str(config), "--port", "0")
    assert done.returncode == 1
    assert f"cannot listen on 127.0.0.1:{taken} for gRPC" in done.stderr
    assert "Traceback" not in done.stderr
    assert served.process.poll() is None
