"""Each face, as the vendors' own SDKs read it, whole and in pieces."""

from __future__ import annotations

import json

import anthropic
import openai
import pytest

from .asking import ask, connect, get, post, read_until, request, rest

MESSAGES = [{"role": "user", "content": "Tell me of the mill."}]
WORDS = "the water runs down a narrow race"


@pytest.fixture
def url(headrace_mock):
    return headrace_mock(tokens=7).url


@pytest.fixture
def theirs(url):
    with openai.OpenAI(
        base_url=f"{url}/v1", api_key="any", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def claude(url):
    with anthropic.Anthropic(
        base_url=url, api_key="any", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


def test_a_chat_is_answered_whole(theirs):
    answer = theirs.chat.completions.create(model="m", messages=MESSAGES)
    assert answer.choices[0].message.content == WORDS
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.model, answer.usage.completion_tokens) == ("m", 7)


def test_a_chat_is_answered_token_by_token(theirs):
    stream = theirs.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    chunks = list(stream)
    said = [c.choices[0].delta.content for c in chunks if c.choices[0].delta.content]
    assert len(said) == 7
    assert "".join(said) == WORDS
    assert all(c.usage is None for c in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_chats_usage_comes_at_the_end_for_those_who_ask(theirs):
    stream = theirs.chat.completions.create(
        model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    *before, last = list(stream)
    assert last.choices == []
    assert last.usage.completion_tokens == 7
    assert last.usage.total_tokens == last.usage.prompt_tokens + 7
    assert all(c.usage is None for c in before)


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_is_no_longer_than_it_asks(theirs, name, stream):
    answer = theirs.chat.completions.create(
        model="m", messages=MESSAGES, stream=stream, **{name: 3}
    )
    if stream:
        chunks = list(answer)
        assert sum(bool(c.choices[0].delta.content) for c in chunks) == 3
        assert chunks[-1].choices[0].finish_reason == "length"
    else:
        assert answer.usage.completion_tokens == 3
        assert answer.choices[0].finish_reason == "length"


def test_a_text_is_completed(theirs, url):
    whole = theirs.completions.create(model="m", prompt="Once")
    assert whole.choices[0].text == WORDS
    # The SDK's type for a piece wants a reason to end in each, which OpenAI does not send either.
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as lenient:
        pieces = list(lenient.completions.create(model="m", prompt="Once", stream=True))
    assert "".join(p.choices[0].text for p in pieces) == WORDS


def test_a_response_is_given_whole_and_in_numbered_events(theirs):
    whole = theirs.responses.create(model="m", input="Tell me.", max_output_tokens=5)
    assert whole.output_text == "the water runs down a"
    assert whole.status == "incomplete"
    events = list(theirs.responses.create(model="m", input="Tell me.", stream=True))
    assert [e.sequence_number for e in events] == list(range(len(events)))
    said = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert len(said) == 7
    assert events[-1].response.output_text == "".join(said) == WORDS
    assert events[-1].response.usage.output_tokens == 7


def test_a_message_is_answered(claude):
    whole = claude.messages.create(model="m", messages=MESSAGES, max_tokens=100)
    assert whole.content[0].text == WORDS
    assert whole.stop_reason == "end_turn"
    with claude.messages.stream(model="m", messages=MESSAGES, max_tokens=4) as stream:
        said = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(said) == 4
    assert final.stop_reason == "max_tokens"
    assert final.usage.output_tokens == 4
    assert final.usage.input_tokens == whole.usage.input_tokens > 0


def test_a_prompt_is_counted_as_it_is_in_an_answer(claude):
    counted = claude.messages.count_tokens(model="m", messages=MESSAGES)
    answer = claude.messages.create(model="m", messages=MESSAGES, max_tokens=1)
    assert counted.input_tokens == answer.usage.input_tokens


def test_equal_texts_have_equal_vectors(url):
    # Not strict: the SDK asks for base64, for which its own type has no place.
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as theirs:
        made = theirs.embeddings.create(model="m", input=["one", "two", "one"], dimensions=16)
    one, two, again = (each.embedding for each in made.data)
    assert one == again != two
    assert len(one) == 16
    assert sum(x * x for x in one) == pytest.approx(1, abs=1e-5)


def test_documents_with_the_querys_words_come_first(url):
    documents = ["a dog", "the old mill wheel", {"text": "a mill"}]
    asked = {"model": "m", "query": "mill wheel", "documents": documents}
    answer = post(url, asked, "/v1/rerank")
    assert [r["index"] for r in answer["results"]] == [1, 2, 0]
    assert answer["results"][1]["document"] == {"text": "a mill"}
    scores = [r["relevance_score"] for r in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["usage"]["total_tokens"] > 0
    (only,) = post(url, {**asked, "top_n": 1}, "/v2/rerank")["results"]
    assert set(only) == {"index", "relevance_score"}


def test_models_are_listed_in_the_callers_own_form(headrace_mock):
    url = headrace_mock(model=["a", "b"]).url
    theirs = openai.OpenAI(base_url=f"{url}/v1", api_key="any")
    claude = anthropic.Anthropic(base_url=url, api_key="any")
    with theirs, claude:
        assert [m.id for m in theirs.models.list()] == ["a", "b"]
        assert theirs.models.retrieve("b").id == "b"
        assert [m.id for m in claude.models.list()] == ["a", "b"]
        with pytest.raises(openai.NotFoundError, match="known: a, b"):
            theirs.models.retrieve("c")


def test_a_long_stream_goes_round_its_words_and_stays_the_text_of_the_whole(headrace_mock):
    url = headrace_mock(tokens=600).url
    for path, body in (
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/responses", {"input": "hi"}),
    ):
        whole = post(url, {"model": "m", **body}, path)
        got, _ = ask(url, {"model": "m", "stream": True, **body}, path)
        events = [json.loads(line[6:]) for line in got.split(b"\n") if line.startswith(b"data: {")]
        if "choices" in whole:
            text = whole["choices"][0]["message"]["content"]
            said = [e["choices"][0]["delta"].get("content") for e in events]
        else:
            text = whole["output"][0]["content"][0]["text"]
            said = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
        assert "".join(filter(None, said)) == text
        assert len(list(filter(None, said))) == 600


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/chat/completions", {"messages": []}, None),
        ("/v1/chat/completions", {"model": "m"}, "messages"),
        ("/v1/chat/completions", {"messages": [], "max_tokens": "many"}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [], "max_tokens": 0}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [], "n": 2}, "n"),
        ("/v1/completions", {"model": "m"}, "prompt"),
        ("/v1/completions", {"prompt": ["one", "two"]}, "prompt"),
        ("/v1/completions", {"prompt": ["one"]}, None),
        ("/v1/completions", {"prompt": [1, 2, 3]}, None),
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/rerank", {"query": "q"}, "documents"),
        ("/v1/rerank", {"query": "q", "documents": [1]}, "documents[0]"),
    ],
)
def test_a_wrong_request_is_told_which_field_is_wrong(url, path, body, param):
    got, _ = ask(url, body, path)
    head, _, said = got.partition(b"\r\n\r\n")
    if param is None:
        assert head.startswith(b"HTTP/1.1 200 ")
    else:
        assert head.startswith(b"HTTP/1.1 400 ")
        assert json.loads(said)["error"]["param"] == param


def test_a_path_that_is_not_there_is_told_which_are(url):
    got, _ = ask(url, {}, "/v1/nowhere")
    assert got.startswith(b"HTTP/1.1 404 ")
    assert b"/v1/chat/completions" in got


def test_requests_on_one_connection_are_answered_in_their_order(url):
    with connect(url) as sock:
        sock.sendall(request() + request(body={"messages": [], "max_tokens": 2}))
        sock.sendall(request("/v1/rerank", {"query": "q", "documents": ["d"]}))
        got = read_until(sock, b"rerank-mock")
    assert got.index(WORDS.encode()) < got.index(b'"the water"') < got.index(b"rerank-mock")


def test_many_requests_may_wait_on_one_connection(headrace_mock):
    url = headrace_mock(ttft="20ms").url
    wrong = request(body={"model": "m"})
    with connect(url) as sock:
        sock.sendall(
            request() + 2000 * wrong + request("/v1/rerank", {"query": "q", "documents": ["d"]})
        )
        got = read_until(sock, b"rerank-mock")
    assert got.count(b"HTTP/1.1 400 ") == 2000


def test_a_look_at_the_head_gets_the_head(url):
    with connect(url) as sock:
        sock.sendall(b"HEAD /health HTTP/1.1\r\nhost: mock\r\nconnection: close\r\n\r\n")
        got, _ = rest(sock)
    assert got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert got.endswith(b"\r\n\r\n")


def test_paths_that_are_not_there_are_counted_as_one(url):
    for path in ('/a"b', "/c"):
        ask(url, {}, path)
    assert b'{path="other",status="404"} 2\n' in get(url, "/metrics")


def test_health_is_well(url):
    assert json.loads(get(url, "/health")) == {"status": "ok"}
