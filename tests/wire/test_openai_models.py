"""Lists of models."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.capabilities import ModelInfo
from headrace.contracts.errors import LLMBadResponseError
from headrace.wire.openai_models import read_model, read_models, write_model, write_models

models = st.builds(
    ModelInfo,
    model_id=st.text(min_size=1, max_size=9),
    created=st.integers(0, 2**31),
    owned_by=st.text(max_size=9),
    max_context_tokens=st.none() | st.integers(1, 10**7),
)


@given(listed=st.lists(models, max_size=3).map(tuple))
@settings(max_examples=30, deadline=None)
def test_a_list_of_models_arrives_as_it_was_sent(listed):
    assert read_models(write_models(listed)) == listed
    for model in listed:
        assert read_model(write_model(model)) == model


@pytest.mark.parametrize(
    "fields",
    [b'"max_model_len": 512', b'"context_length": 512', b'"context_window": 512',
     b'"meta": {"n_ctx": 512}'],
)  # fmt: skip
def test_the_context_length_is_found_under_each_servers_name(fields):
    assert read_model(b'{"id": "m", ' + fields + b"}").max_context_tokens == 512


@pytest.mark.parametrize("body", [b"", b"{}", b"5", b'{"data": 5}', b'{"data": [{"name": "m"}]}'])
def test_a_list_of_another_shape_is_a_bad_response(body):
    with pytest.raises(LLMBadResponseError):
        read_models(body)
