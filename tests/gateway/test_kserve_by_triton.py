"""Triton's own client, REST and gRPC, against the gateway with the real models: `make test-triton`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.served import MODEL, Served, until

http = pytest.importorskip("tritonclient.http", reason="make test-triton installs tritonclient")
grpc = pytest.importorskip("tritonclient.grpc", reason="make test-triton installs tritonclient")
numpy = pytest.importorskip("numpy")
utils = pytest.importorskip("tritonclient.utils")

EMBEDDER = "all-minilm-l6-v2"
WEATHER = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
GRPC = re.compile(r"gRPC service is at 127.0.0.1:(\d+)")
WAYS = {"http": http, "grpc": grpc}

pytestmark = pytest.mark.usefixtures("embedding_model")


@pytest.fixture(scope="module")
def served(box_model: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    config = {"server": {"grpc_port": 0, "api_keys": ["right"]}}
    gateway = Served(tmp_path_factory.mktemp("triton"), config)
    try:
        gateway.show_key("right")
        gateway.wait_until_ready()
        yield gateway
    finally:
        gateway.stop()


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> Any:
    return WAYS[request.param]


@pytest.fixture
def client(way: Any, served: Served) -> Iterator[Any]:
    if way is http:
        made = http.InferenceServerClient(f"{served.host}:{served.port}")
    else:
        port = until(lambda: GRPC.search(served.log))[1]
        made = grpc.InferenceServerClient(f"{served.host}:{port}")
    yield made
    made.close()


def key() -> dict[str, str]:
    """Anew each time: Triton's client writes into what it is given."""
    return {"authorization": "Bearer right"}


def prompt(way: Any, *texts: str, name: str = "text_input", binary: bool = True) -> Any:
    given = way.InferInput(name, [len(texts)], "BYTES")
    data = numpy.array([each.encode() for each in texts], dtype=object)
    if way is http:
        given.set_data_from_numpy(data, binary_data=binary)
    else:
        given.set_data_from_numpy(data)
    return given


def metadata_of(way: Any, told: Any) -> dict[str, Any]:
    if way is http:
        return dict(told)
    from google.protobuf.json_format import MessageToDict

    found: dict[str, Any] = MessageToDict(told)
    for side in ("inputs", "outputs"):
        for each in found.get(side, ()):
            each["shape"] = [int(size) for size in each["shape"]]
    return found


def test_it_is_alive_and_ready(client):
    assert client.is_server_live()
    assert client.is_server_live(headers=key())
    assert client.is_server_ready(headers=key())
    assert client.is_model_ready(MODEL, headers=key())
    assert client.is_model_ready(MODEL, "1", headers=key())


def test_it_says_what_it_is_and_what_its_models_take(client, way):
    told = metadata_of(way, client.get_server_metadata(headers=key()))
    assert told["name"] == "headrace"
    assert "binary_tensor_data" in told["extensions"]
    told = metadata_of(way, client.get_model_metadata(MODEL, headers=key()))
    assert told["inputs"] == [{"name": "text_input", "datatype": "BYTES", "shape": [-1]}]
    assert told["outputs"][0] == {"name": "text_output", "datatype": "BYTES", "shape": [-1]}
    told = metadata_of(way, client.get_model_metadata(EMBEDDER, headers=key()))
    assert told["outputs"] == [{"name": "embedding", "datatype": "FP32", "shape": [-1, -1]}]


def test_a_text_is_continued(client, way, served):
    settings = {"max_tokens": 8, "temperature": 0, "seed": 1}
    result = client.infer(
        MODEL,
        [prompt(way, "The capital of France is")],
        request_id="42",
        headers=key(),
        parameters=settings,
    )
    (text,) = result.as_numpy("text_output")
    asked = {"prompt": "The capital of France is", **settings}
    reply = served.post("/v1/completions", asked, key())
    assert text.decode() == reply.json["choices"][0]["text"]
    assert "Paris" in text.decode()
    (reason,) = result.as_numpy("finish_reason")
    assert reason.decode() == reply.json["choices"][0]["finish_reason"]
    assert result.as_numpy("num_output_tokens")[0] == reply.json["usage"]["completion_tokens"]
    response = result.get_response()
    found = response["id"] if way is http else response.id
    assert found == "42"


def test_several_texts_are_continued_at_once(client, way):
    settings = {"max_tokens": 3, "temperature": 0}
    both = [prompt(way, "One, two,", "A, b,")]
    result = client.infer(MODEL, both, headers=key(), parameters=settings)
    assert result.as_numpy("text_output").shape == (2,)


def test_vectors_are_the_models_own(client, way):
    result = client.infer(EMBEDDER, [prompt(way, *WEATHER, name="text")], headers=key())
    vectors = result.as_numpy("embedding")
    assert (vectors.shape, str(vectors.dtype)) == ((3, 384), "float32")
    # https://sbert.net/docs/quickstart.html
    assert vectors[0] @ vectors[1] == pytest.approx(0.6660, abs=0.001)
    assert vectors[0] @ vectors[2] == pytest.approx(0.1046, abs=0.001)


@pytest.mark.parametrize("binary", [True, False])
def test_outputs_come_as_json_or_as_bytes(served, binary):
    client = http.InferenceServerClient(f"{served.host}:{served.port}")
    asked = [http.InferRequestedOutput("embedding", binary_data=binary)]
    given = [prompt(http, "tea", name="text", binary=binary)]
    result = client.infer(EMBEDDER, given, outputs=asked, headers=key())
    assert result.as_numpy("embedding").shape == (1, 384)
    assert ("data" in result.get_output("embedding")) is not binary
    client.close()


@pytest.mark.parametrize(
    ("model", "texts", "settings", "words", "statuses"),
    [
        ("smollm", ["x"], {}, "there is no model 'smollm'", ("404", "StatusCode.NOT_FOUND")),
        (MODEL, ["x"], {"max_tokens": -1}, "max_tokens", ("400", "StatusCode.INVALID_ARGUMENT")),
        (MODEL, ["x"], {"max_token": 1}, "max_token", ("400", "StatusCode.INVALID_ARGUMENT")),
    ],
)
def test_an_error_is_told_in_the_clients_own_words(
    client, way, model, texts, settings, words, statuses
):
    with pytest.raises(utils.InferenceServerException) as caught:
        client.infer(model, [prompt(way, *texts)], headers=key(), parameters=settings)
    assert words in caught.value.message()
    assert caught.value.status() == statuses[way is grpc]


def test_without_a_key_nothing_is_answered(client, way):
    with pytest.raises(utils.InferenceServerException) as caught:
        client.infer(MODEL, [prompt(way, "x")])
    assert caught.value.status() in ("401", "StatusCode.UNAUTHENTICATED")


def test_the_repositorys_index_lists_the_models(served):
    client = http.InferenceServerClient(f"{served.host}:{served.port}")
    listed = client.get_model_repository_index(headers=key())
    assert [each["name"] for each in listed] == [MODEL, EMBEDDER]
    client.close()
