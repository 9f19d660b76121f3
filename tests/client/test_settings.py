"""What a client can be made with, and what it refuses to be made with."""

from __future__ import annotations

import pytest

from headrace import AsyncClient, Client, LLMInvalidRequestError

FACES = pytest.mark.parametrize("face", [Client, AsyncClient])


@FACES
def test_a_key_that_is_nobodys_is_refused(face: type[Client]) -> None:
    with pytest.raises(LLMInvalidRequestError, match="whose key it is") as refused:
        face(api_key="sk-not-real")
    assert refused.value.param == "api_key"
    assert "sk-not-real" not in str(refused.value)


@FACES
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(face: type[Client]) -> None:
    with pytest.raises(LLMInvalidRequestError, match="'base_url'"):
        face("a-model", base_urll="http://127.0.0.1:1/v1")


@FACES
def test_the_settings_can_be_shown_without_the_key(face: type[Client]) -> None:
    import json

    client = face("openai/gpt-4o-mini", api_key="sk-not-real")
    shown = json.dumps(client.config_snapshot()) + json.dumps(client.describe()) + repr(client)
    assert "sk-not-real" not in shown
    assert "gpt-4o-mini" in shown
