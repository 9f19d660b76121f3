"""Text completions and the list of models, with the real model and OpenAI's own client."""

from __future__ import annotations

import openai
import pytest

from gateway.served import MODEL

FRANCE = "The capital of France is"


def complete(sdk, prompt=FRANCE, **settings):
    settings = {"model": MODEL, "max_tokens": 4, "temperature": 0, **settings}
    return sdk.completions.create(prompt=prompt, **settings)


def test_a_text_is_continued(sdk):
    answer = complete(sdk)
    assert answer.object == "text_completion"
    assert "Paris" in answer.choices[0].text
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4
    assert answer.usage.prompt_tokens == 5
    assert answer.id.startswith("cmpl-")


def test_a_prompt_may_come_as_token_ids(sdk):
    answer = complete(sdk, [504, 3575, 282, 4649, 314])
    assert answer.usage.prompt_tokens == 5
    assert answer.choices[0].text == complete(sdk).choices[0].text


def test_a_stream_says_what_a_plain_answer_says(sdk):
    plain = complete(sdk)
    *pieces, last = complete(sdk, stream=True, stream_options={"include_usage": True})
    assert "".join(piece.choices[0].text for piece in pieces) == plain.choices[0].text
    assert pieces[-1].choices[0].finish_reason == "length"
    assert last.choices == []
    assert last.usage.completion_tokens == 4


def test_several_prompts_are_answered_in_their_order(sdk):
    answer = complete(sdk, [FRANCE, "One, two, three, four,"], max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert "Paris" in answer.choices[0].text
    assert "five" in answer.choices[1].text
    assert answer.usage.completion_tokens == 6


def test_several_prompts_with_several_answers_each_keep_their_places(sdk):
    answer = complete(sdk, [FRANCE, "One, two, three, four,"], n=2, max_tokens=3)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert all("Paris" in answer.choices[i].text for i in (0, 1))
    assert all("five" in answer.choices[i].text for i in (2, 3))


def test_several_prompts_are_streamed_under_their_indexes(sdk):
    text = {}
    for chunk in complete(sdk, [FRANCE, "One, two, three, four,"], stream=True, max_tokens=3):
        for choice in chunk.choices:
            text[choice.index] = text.get(choice.index, "") + choice.text
    assert "Paris" in text[0]
    assert "five" in text[1]


def test_logprobs_come_in_the_old_form(sdk):
    choice = complete(sdk, logprobs=2).choices[0]
    assert len(choice.logprobs.tokens) == 4
    assert "".join(choice.logprobs.tokens) == choice.text
    assert all(value <= 0 for value in choice.logprobs.token_logprobs)
    assert all(len(each) == 2 for each in choice.logprobs.top_logprobs)
    assert choice.logprobs.text_offset[0] == 0
    assert choice.logprobs.text_offset == sorted(choice.logprobs.text_offset)


def test_a_stop_word_ends_the_text_before_it(sdk):
    choice = complete(sdk, stop=" Paris").choices[0]
    assert choice.finish_reason == "stop"
    assert "Paris" not in choice.text


def test_what_the_engine_cannot_do_is_refused_by_name(sdk):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(sdk, best_of=3)
    assert caught.value.param == "best_of"
    assert caught.value.code == "unsupported"


def test_a_suffix_is_not_aimed_at_and_the_answer_says_so(sdk):
    answer = sdk.completions.with_raw_response.create(
        model=MODEL, prompt=FRANCE, suffix=" and that is all.", max_tokens=4
    )
    assert answer.headers["x-headrace-dropped"] == "suffix"
    assert answer.parse().choices[0].text


def test_an_echo_begins_with_the_prompt(sdk):
    plain = complete(sdk, echo=True, logprobs=0).choices[0]
    streamed = [piece.choices[0] for piece in complete(sdk, echo=True, logprobs=0, stream=True)]
    assert plain.text.startswith(f"{FRANCE} ")
    assert "".join(piece.text for piece in streamed) == plain.text
    offsets = [at for piece in streamed if piece.logprobs for at in piece.logprobs.text_offset]
    assert plain.logprobs.text_offset == offsets
    assert offsets[0] == len(FRANCE)


def test_log_probabilities_come_without_alternatives_too(sdk):
    logprobs = complete(sdk, logprobs=0).choices[0].logprobs
    assert len(logprobs.token_logprobs) == 4
    assert logprobs.top_logprobs is None


def test_the_box_s_model_is_listed_first(sdk):
    first = sdk.models.list().data[0]
    assert first.id == MODEL
    assert first.object == "model"
    assert first.created > 1_600_000_000
    assert first.owned_by == "headrace"


def test_a_model_is_shown_by_its_name(sdk):
    assert sdk.models.retrieve(MODEL) == sdk.models.list().data[0]


def test_an_unknown_model_is_not_shown(sdk):
    with pytest.raises(openai.NotFoundError) as caught:
        sdk.models.retrieve("smollm2-135m-instrukt")
    assert caught.value.code == "model_not_found"
    assert MODEL in str(caught.value)


def test_an_unknown_model_is_not_asked(sdk):
    with pytest.raises(openai.NotFoundError, match=f"did you mean '{MODEL}'"):
        complete(sdk, model="smollm2-135b-instruct")


def test_a_bad_request_is_the_sdks_bad_request(sdk):
    with pytest.raises(openai.BadRequestError) as caught:
        complete(sdk, temperature=17)
    assert caught.value.status_code == 400
    assert caught.value.param == "temperature"
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id.startswith("req_")
