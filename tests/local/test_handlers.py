"""Endpoint handlers over models that are computed out of their folders."""

from __future__ import annotations

import asyncio

import pytest

from headrace import endpoint_handler, register_endpoint, unregister_endpoint
from headrace.backends.local.folders.rows import TRANSFORMERS
from local import tiny

pytest.importorskip("transformers", reason="transformers is not installed: make test-local")
pytest.importorskip("torch", reason="as transformers")


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    endpoint_handler.close()


def test_a_folder_that_chats(tmp_path):
    folder = str(tiny.llama(tmp_path / "llama"))
    handler = register_endpoint(folder, "cpu:0")
    try:
        assert handler is endpoint_handler[folder]["CPU"]
        assert handler.task == "chat"
        settings = {"max_tokens": 4, "temperature": 0.0}
        here = handler("A fox and a crow met.", **settings)
        assert here.provider == TRANSFORMERS.name
        assert here.usage.completion_tokens == 4

        async def inside():
            return await handler("A fox and a crow met.", **settings)

        assert asyncio.run(inside()).text == here.text
    finally:
        unregister_endpoint(folder, "cpu:0")


def test_a_folder_that_makes_vectors(tmp_path):
    folder = str(tiny.bert(tmp_path / "bert"))
    handler = register_endpoint(folder, "cpu:0")
    try:
        assert handler.task == "embeddings"
        one, two = handler(["a river", "a stream"]).vectors
        assert len(one) == len(two) > 0
        assert list(one) != list(two)
    finally:
        unregister_endpoint(folder, "cpu:0")
