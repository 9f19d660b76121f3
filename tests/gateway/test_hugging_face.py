"""TGI's and TEI's paths over the real models, by plain HTTP and by Hugging Face's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.served import MODEL, Reply, Served
from headrace import Client, LLMRequest
from headrace.contracts.errors import LLMCapabilityError, LLMContextLengthError
from headrace.wire import tei, tgi

EMBEDDER = "all-minilm-l6-v2"
WEATHER = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
# https://sbert.net/docs/quickstart.html
LIKENESS = [0.6660, 0.1046]
FRANCE = "The capital of France is"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}},
    "required": ["city"],
    "additionalProperties": False,
}
OFF = {"engine": {"enabled": False}, "embeddings": {"enabled": False}}

pytestmark = pytest.mark.usefixtures("embedding_model")


@pytest.fixture(scope="module")
def front(gateway, tmp_path_factory) -> Iterator[Served]:
    """A gateway whose backends are the other one's TGI and TEI faces, and its OpenAI one."""
    behind = {"base_url": gateway.url, "max_retries": 0}
    backends = [
        {"name": "generates", "provider": "tgi-native", "model": MODEL, **behind},
        {"name": "embeds", "provider": "tei-native", "model": EMBEDDER, **behind},
        {"name": "completes", "base_url": f"{gateway.url}/v1", "model": MODEL},
        {
            "name": "converses",
            "provider": "anthropic",
            "api_key": "sk-other",
            "model": MODEL,
            **behind,
        },
    ]
    served = Served(tmp_path_factory.mktemp("front"), {**OFF, "backends": backends})
    try:
        yield served
    finally:
        served.stop()


def generate(served: Served, path: str = "/generate", prompt: str = FRANCE, **more: Any) -> Reply:
    model = more.pop("model", None)
    stream = more.pop("stream", None)
    beside = {"model": model, "stream": stream}
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 6, **more}, **beside}
    return served.post(path, body)


def events(reply: Reply) -> list[dict[str, Any]]:
    assert reply.headers["content-type"].startswith("text/event-stream")
    lines = reply.body.decode().split("\n")
    return [json.loads(line.removeprefix("data:")) for line in lines if line]


@pytest.fixture(scope="module")
def greedy(sdk) -> str:
    """What the model says at temperature 0, by OpenAI's own client."""
    answer = sdk.completions.create(model=MODEL, prompt=FRANCE, max_tokens=6, temperature=0)
    return str(answer.choices[0].text)


def test_a_text_is_gone_on_with_as_by_any_other_face(gateway, greedy):
    reply = generate(gateway)
    assert (reply.status, reply.json) == (200, {"generated_text": greedy})
    assert "Paris" in greedy
    assert int(reply.headers["x-generated-tokens"]) == 6
    assert int(reply.headers["x-prompt-tokens"]) == 5


def test_details_tell_each_token_by_its_own_number(gateway, greedy):
    reply = generate(gateway, details=True, top_n_tokens=2, seed=3)
    assert reply.json["generated_text"] == greedy
    details = reply.json["details"]
    assert (details["finish_reason"], details["generated_tokens"]) == ("length", 6)
    assert details["seed"] == 3
    assert "".join(each["text"] for each in details["tokens"]) == greedy
    assert all(each["id"] > 0 and each["logprob"] <= 0 for each in details["tokens"])
    for token, tops in zip(details["tokens"], details["top_tokens"], strict=True):
        assert token["id"] == tops[0]["id"]
        assert len(tops) == 2
    assert "x-headrace-dropped" not in reply.headers


@pytest.mark.parametrize("path", ["/generate_stream", "/"])
def test_a_stream_is_the_same_text_token_by_token(gateway, greedy, path):
    said = events(generate(gateway, path, details=True, stream=True))
    assert "".join(each["token"]["text"] for each in said) == greedy
    assert [each["index"] for each in said] == list(range(1, len(said) + 1))
    assert all(each["generated_text"] is None for each in said[:-1])
    assert said[-1]["generated_text"] == greedy
    assert said[-1]["details"]["finish_reason"] == "length"
    assert said[-1]["details"]["generated_tokens"] == 6
    assert said[-1]["details"]["input_length"] == 5
    assert all(each["token"]["id"] > 0 for each in said[:-1])


def test_who_asks_for_no_details_is_told_that_tokens_have_no_numbers(gateway, greedy):
    reply = generate(gateway, "/generate_stream")
    said = events(reply)
    assert reply.headers["x-headrace-dropped"] == "token.id"
    assert said[-1]["generated_text"] == greedy
    assert said[-1]["details"] is None
    assert said[0]["token"]["logprob"] is None


def test_the_other_path_answers_whole_in_an_array(gateway, greedy):
    assert generate(gateway, "/").json == [{"generated_text": greedy}]


def test_the_prompt_goes_before_the_text_where_that_is_asked_for(gateway, greedy):
    assert generate(gateway, return_full_text=True).json["generated_text"] == FRANCE + greedy
    said = events(generate(gateway, "/generate_stream", return_full_text=True))
    assert said[-1]["generated_text"] == FRANCE + greedy
    assert "".join(each["token"]["text"] for each in said) == greedy


def test_a_text_ends_with_the_stop_string_that_ended_it(gateway, greedy):
    reply = generate(gateway, stop=["Paris"], details=True)
    assert reply.json["generated_text"] == greedy[: greedy.index("Paris")] + "Paris"
    assert reply.json["details"]["finish_reason"] == "stop_sequence"


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
def test_a_grammar_holds_the_text_to_its_schema(gateway, path):
    grammar = {"type": "json", "value": SCHEMA}
    reply = generate(gateway, path, grammar=grammar, max_new_tokens=40)
    text = reply.json if path == "/generate" else events(reply)[-1]
    assert list(json.loads(text["generated_text"])) == ["city"]


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"grammar": {"type": "regex", "value": "a+"}}, "regular expression"),
        ({"truncate": 5}, "'truncate'"),
        ({"watermark": True}, "'watermark'"),
        ({"adapter_id": "mine"}, "'adapter_id'"),
        ({"decoder_input_details": True}, "'decoder_input_details'"),
        ({"temperature": 0}, "parameters.temperature"),
        ({"max_new_tokens": -1}, "parameters.max_new_tokens"),
        ({"max_new_tokens": 10**6}, "max_tokens"),
        ({"nonsense": 1}, "nonsense"),
        ({"best_of": 2, "do_sample": True}, "best_of"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name_in_tgis_form(gateway, parameters, field):
    reply = generate(gateway, **parameters)
    assert reply.status == 422
    assert set(reply.json) == {"error", "error_type"}
    assert reply.json["error_type"] == "validation"
    assert field in reply.json["error"]


def test_other_refusals_have_tgis_form_too(gateway):
    assert gateway.post("/generate", b"{").json["error_type"] == "validation"
    reply = generate(gateway, model="nobody")
    assert (reply.status, reply.json["error_type"]) == (404, "validation")
    reply = gateway.get("/generate")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    reply = generate(gateway, model=EMBEDDER)
    assert reply.status == 422
    assert "makes embeddings, not text" in reply.json["error"]


def test_fields_of_hugging_faces_api_that_do_nothing_here_are_told(gateway):
    body = {"inputs": FRANCE, "options": {"use_cache": False}, "parameters": {"max_new_tokens": 1}}
    assert gateway.post("/", body).headers["x-headrace-dropped"] == "options"


# TEI's.


def vectors(sdk: Any, texts: list[str]) -> list[list[float]]:
    answer = sdk.embeddings.create(model=EMBEDDER, input=texts, encoding_format="float")
    return [each.embedding for each in answer.data]


@pytest.mark.parametrize("path", ["/embed", "/"])
def test_vectors_are_those_of_any_other_face(gateway, sdk, path):
    reply = gateway.post(path, {"inputs": WEATHER})
    assert reply.status == 200
    for ours, theirs in zip(reply.json, vectors(sdk, WEATHER), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert int(reply.headers["x-compute-tokens"]) == 25


def test_one_text_is_answered_with_one_vector_in_an_array(gateway):
    (vector,) = gateway.post("/embed", {"inputs": WEATHER[0]}).json
    assert len(vector) == 384
    (alone,) = gateway.post("/", {"inputs": WEATHER[0], "model": EMBEDDER}).json
    assert alone == pytest.approx(vector, abs=1e-6)


@pytest.mark.parametrize("path", ["/similarity", "/"])
def test_sentences_are_as_alike_as_they_are_published_to_be(gateway, path):
    inputs = {"source_sentence": WEATHER[0], "sentences": WEATHER[1:]}
    assert gateway.post(path, {"inputs": inputs}).json == pytest.approx(LIKENESS, abs=0.001)


def test_a_text_that_is_too_long_is_refused_or_cut_as_asked(gateway):
    long = "word " * 400 + "end"
    reply = gateway.post("/embed", {"inputs": long})
    error = tei.read_error(reply.status, reply.body)
    assert reply.status == 422
    assert reply.json["error_type"] == "Validation"
    assert "at most 256" in error.message
    (cut,) = gateway.post("/embed", {"inputs": long, "truncate": True}).json
    (same,) = gateway.post("/embed", {"inputs": "word " * 254}).json
    assert cut == pytest.approx(same, abs=1e-5)
    left = {"inputs": long, "truncate": True, "truncation_direction": "Left"}
    (end,) = gateway.post("/embed", left).json
    (same,) = gateway.post("/embed", {"inputs": "word " * 253 + "end"}).json
    assert end == pytest.approx(same, abs=1e-5)


@pytest.mark.parametrize(
    ("path", "status"),
    [("/embed_all", 501), ("/embed_sparse", 501)],
)
def test_what_no_engine_gives_is_refused_by_name(gateway, path, status):
    reply = gateway.post(path, {"inputs": "a"})
    assert reply.status == status
    assert path in reply.json["error"]


def test_the_tokens_of_a_text_are_told_with_their_places_and_back(gateway):
    text = "Grüezi, wie geht's? 👋"
    tokens = gateway.post("/tokenize", {"inputs": text}).json
    assert "".join(text[each["start"] : each["stop"]] for each in tokens) == text
    assert tokens[0].keys() == {"id", "text", "start", "stop"}
    ids = [each["id"] for each in tokens]
    assert gateway.post("/decode", {"ids": ids}).json == [text]
    assert gateway.post("/decode", {"ids": [ids, ids[:1]]}).json == [text, tokens[0]["text"]]
    ((*many,),) = gateway.post("/tokenize", {"inputs": [text]}).json
    assert [each["id"] for each in many] == ids
    assert all(each["special"] is False for each in many)


def test_a_model_that_knows_small_letters_alone_tells_tokens_without_places(gateway):
    asked = {"inputs": "The River", "model": EMBEDDER}
    ((first, *own, last),) = gateway.post("/tokenize", asked).json
    assert (first["special"], last["special"]) == (True, True)
    assert [each["special"] for each in own] == [False, False]
    assert all("start" not in each for each in (first, *own, last))
    ids = [each["id"] for each in (first, *own, last)]
    bare = gateway.post("/tokenize", {**asked, "add_special_tokens": False}).json
    assert [each["id"] for each in bare[0]] == ids[1:-1]
    (said,) = gateway.post("/decode", {"ids": ids, "model": EMBEDDER}).json
    assert said.strip() == "the river"


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/tokenize", {}, "inputs"),
        ("/tokenize", {"inputs": 1}, "inputs"),
        ("/tokenize", {"inputs": ["a", 1]}, "inputs[1]"),
        ("/tokenize", {"inputs": "a", "prompt_name": "query"}, "prompt_name"),
        ("/decode", {}, "ids"),
        ("/decode", {"ids": ["a"]}, "ids[0]"),
        ("/decode", {"ids": [[1], 2]}, "ids[1]"),
        ("/decode", {"ids": [2**40]}, "ids[0]"),
    ],
)
def test_what_is_wrong_with_tokens_is_named(gateway, path, body, field):
    reply = gateway.post(path, body)
    assert reply.status == 422
    assert f"'{field}'" in reply.json["error"]


def test_a_token_that_there_is_not_is_the_callers_mistake(gateway):
    reply = gateway.post("/decode", {"ids": [10**6]})
    assert reply.status == 422
    assert "does not have" in reply.json["error"]


def test_a_tokenizer_that_is_elsewhere_cannot_be_asked(front):
    reply = front.post("/tokenize", {"inputs": "a", "model": "generates"})
    assert (reply.status, reply.json["error_type"]) == (501, "Validation")


def test_vectors_that_are_not_normal_cannot_be_had_here(gateway):
    reply = gateway.post("/embed", {"inputs": "a", "normalize": False})
    assert reply.status == 422
    assert "normalize" in reply.json["error"]


def test_nobody_ranks_by_likeness_who_was_not_told_to(gateway):
    reply = gateway.post("/rerank", {"query": "a", "texts": ["b"]})
    assert reply.status == 422
    assert "no model of this server ranks documents" in reply.json["error"]
    reply = gateway.post("/rerank", {"query": "a", "texts": ["b"], "model": EMBEDDER})
    assert "ranks no documents" in reply.json["error"]


def test_one_description_tells_both_kinds_of_clients_of_a_model(gateway):
    told = gateway.get("/info").json
    assert (told["model_id"], told["model_pipeline_tag"]) == (MODEL, "text-generation")
    assert told["max_input_tokens"] == told["max_total_tokens"] - 1
    assert told["models"] == [MODEL, EMBEDDER]
    told = gateway.get(f"/info?model={EMBEDDER}").json
    assert told["model_id"] == told["served_model_name"] == EMBEDDER
    assert list(told["model_type"]) == ["embedding"]
    assert told["max_input_length"] == 256
    reply = gateway.get("/info?model=nobody")
    assert (reply.status, set(reply.json)) == (404, {"error", "error_type"})


# Our own faces as backends.


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
def test_a_tgi_backend_says_the_same_by_every_face(front, greedy, path):
    if path == "/v1/completions":
        body = {"model": "generates", "prompt": FRANCE, "max_tokens": 6, "temperature": 0}
        reply = front.post(path, body).json
        text, usage = reply["choices"][0]["text"], reply["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 6)
        assert reply["choices"][0]["finish_reason"] == "length"
        assert reply["choices"][0]["logprobs"] is None
    else:
        reply = generate(front, path, model="generates")
        text = (reply.json if path == "/generate" else events(reply)[-1])["generated_text"]
    assert text == greedy


def test_numbers_and_probabilities_go_through_two_gateways(gateway, front):
    ours, theirs = (
        generate(served, details=True, top_n_tokens=1, **more).json["details"]
        for served, more in ((gateway, {}), (front, {"model": "generates"}))
    )
    assert ours["tokens"] == theirs["tokens"]
    assert ours["top_tokens"] == theirs["top_tokens"]


def test_a_stop_string_is_taken_away_and_named_by_who_knows_it(front, greedy):
    body = {"model": "generates", "prompt": FRANCE, "max_tokens": 6, "temperature": 0}
    for stream in (False, True):
        reply = front.post("/v1/completions", {**body, "stop": ["Paris"], "stream": stream})
        if stream:
            lines = reply.body.decode().split("\n")
            chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
            text = "".join(c["text"] for chunk in chunks for c in chunk["choices"])
        else:
            text = reply.json["choices"][0]["text"]
        assert text == greedy[: greedy.index("Paris")]
    wire = generate(front, model="generates", stop=["Paris"], details=True).json
    assert wire["details"]["finish_reason"] == "stop_sequence"
    assert wire["generated_text"].endswith("Paris")


def test_a_grammar_is_for_backends_that_hold_a_completion_to_it(front):
    grammar = {"type": "json", "value": SCHEMA}
    reply = generate(front, model="generates", grammar=grammar, max_new_tokens=40)
    assert list(json.loads(reply.json["generated_text"])) == ["city"]
    reply = generate(front, model="completes", grammar=grammar)
    assert reply.status == 422
    assert "'grammar'" in reply.json["error"]
    assert generate(front, model="completes").json["generated_text"]
    reply = generate(front, model="converses")
    assert reply.status == 422
    assert "no text completions" in reply.json["error"]


def test_a_tei_backend_gives_the_same_vectors(front, sdk):
    body = {"model": "embeds", "input": WEATHER, "encoding_format": "float"}
    reply = front.post("/v1/embeddings", body).json
    for ours, theirs in zip(reply["data"], vectors(sdk, WEATHER), strict=True):
        assert ours["embedding"] == pytest.approx(theirs, abs=1e-6)
    assert reply["usage"] == {"prompt_tokens": 25, "total_tokens": 25}
    inputs = {"source_sentence": WEATHER[0], "sentences": WEATHER[1:]}
    reply = front.post("/similarity", {"inputs": inputs, "model": "embeds"})
    assert reply.json == pytest.approx(LIKENESS, abs=0.001)


def test_teis_own_options_go_to_tei_and_are_refused_elsewhere(front):
    long = {"inputs": "word " * 400, "truncate": True}
    (vector,) = front.post("/embed", {**long, "model": "embeds"}).json
    assert len(vector) == 384
    reply = front.post("/embed", {**long, "model": "completes"})
    assert reply.status == 422
    assert "'truncate'" in reply.json["error"]


def test_our_client_speaks_to_both(gateway, greedy):
    with Client(provider="tgi-native", base_url=gateway.url) as client:
        asked = LLMRequest(
            messages=(), prompt=FRANCE, model=MODEL, max_tokens=6, temperature=0, logprobs=True
        )
        answer = client.generate(asked)
        assert (answer.text, answer.finish_reason) == (greedy, "length")
        assert answer.usage is not None
        assert [each.token for each in answer.logprobs or ()]
        assert "".join(delta.text_delta or "" for delta in client.stream(asked)) == greedy
        with pytest.raises(LLMCapabilityError, match="answers no chats"):
            client.chat("hello", model=MODEL)
    with Client(EMBEDDER, provider="tei-native", base_url=gateway.url) as client:
        assert len(client.embed(WEATHER, model=EMBEDDER).vectors) == 3
        with pytest.raises(LLMContextLengthError):
            client.embed("word " * 400, model=EMBEDDER)
        assert client.healthcheck().ok


def test_a_gateway_that_was_told_to_ranks_by_likeness(tmp_path):
    config = {"engine": {"enabled": False}, "embeddings": {"rank_by_similarity": True}}
    served = Served(tmp_path, config)
    try:
        texts = ["Bread is made of flour.", "Paris is the capital of France."]
        asked = {"query": "What is the capital of France?", "documents": texts}
        reply = served.post("/v2/rerank", asked)
        assert [each["index"] for each in reply.json["results"]] == [1, 0]
        best, worst = (each["relevance_score"] for each in reply.json["results"])
        assert best > 0.7 > 0.3 > worst
        assert reply.json["meta"]["tokens"]["input_tokens"] > 20
        reply = served.post("/rerank", {"query": "a", "texts": ["b"], "raw_scores": True})
        assert reply.status == 422
        assert "raw_scores" in reply.json["error"]
        vector = served.post("/", {"inputs": texts[0]}).json
        assert len(vector[0]) == 384
    finally:
        served.stop()


# Hugging Face's own client.


@pytest.fixture(scope="module")
def hub() -> Any:
    return pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


@pytest.fixture
def inference(hub, gateway) -> Any:
    return hub.InferenceClient(model=gateway.url, token="unused", timeout=60)


def test_hugging_faces_client_goes_on_with_a_text(inference, greedy):
    assert inference.text_generation(FRANCE, max_new_tokens=6) == greedy
    whole = inference.text_generation(FRANCE, max_new_tokens=6, details=True)
    assert whole.generated_text == greedy
    assert whole.details.finish_reason == "length"
    assert "".join(token.text for token in whole.details.tokens) == greedy


def test_hugging_faces_client_reads_our_streams(inference, greedy):
    assert "".join(inference.text_generation(FRANCE, max_new_tokens=6, stream=True)) == greedy
    said = [*inference.text_generation(FRANCE, max_new_tokens=6, stream=True, details=True)]
    assert said[-1].generated_text == greedy
    assert said[-1].details.generated_tokens == 6
    assert "".join(each.token.text for each in said) == greedy


def test_hugging_faces_client_gets_what_its_settings_ask_for(inference, greedy):
    stopped = inference.text_generation(FRANCE, max_new_tokens=6, stop=["Paris"])
    assert stopped.endswith("Paris")
    full = inference.text_generation(FRANCE, max_new_tokens=6, return_full_text=True)
    assert full == FRANCE + greedy
    grammar = {"type": "json", "value": SCHEMA}
    text = inference.text_generation(FRANCE, max_new_tokens=40, grammar=grammar)
    assert list(json.loads(text)) == ["city"]
    settings = {"do_sample": True, "temperature": 0.7, "top_p": 0.9, "top_k": 20, "seed": 5}
    once, again = (
        inference.text_generation(FRANCE, max_new_tokens=6, repetition_penalty=1.1, **settings)
        for _ in range(2)
    )
    assert once == again


def test_hugging_faces_client_reads_our_errors(hub, inference):
    from huggingface_hub.errors import ValidationError

    with pytest.raises(ValidationError, match=r"parameters\.top_k"):
        inference.text_generation(FRANCE, top_k=0)


def test_hugging_faces_client_chats(hub, gateway):
    # Where it is given an address alone, it calls every model "dummy"; so it is told the name.
    chat = hub.InferenceClient(base_url=f"{gateway.url}/v1", token="unused").chat.completions
    asked = {"model": MODEL, "max_tokens": 4, "temperature": 0}
    messages = [{"role": "user", "content": "Say hello."}]
    answer = chat.create(messages=messages, **asked)
    pieces = chat.create(messages=messages, stream=True, **asked)
    said = "".join(p.choices[0].delta.content or "" for p in pieces if p.choices)
    assert said == answer.choices[0].message.content != ""


def test_hugging_faces_client_makes_vectors_and_compares(hub, gateway, sdk):
    client = hub.InferenceClient(model=f"{gateway.url}/embed", token="unused")
    found = client.feature_extraction(
        WEATHER, normalize=True, truncate=True, encoding_format="float"
    )
    for ours, theirs in zip(found, vectors(sdk, WEATHER), strict=True):
        assert list(ours) == pytest.approx(theirs, abs=1e-6)
    alike = hub.InferenceClient(model=gateway.url).sentence_similarity(WEATHER[0], WEATHER[1:])
    assert alike == pytest.approx(LIKENESS, abs=0.001)


def test_hugging_faces_client_looks_at_the_server(hub, gateway):
    inference = hub.InferenceClient(model=gateway.url, provider="hf-inference", token="unused")
    assert inference.health_check()
    assert inference.get_endpoint_info()["model_id"] == MODEL


def test_a_completion_that_was_written_is_read_by_the_codec(gateway, greedy):
    reply = generate(gateway, details=True)
    answer = tgi.read_response(reply.body, keep=("logprobs",))
    assert answer.text == greedy
    assert tgi.usage_from_headers(reply.headers).completion_tokens == 6
