"""A model that is known by name and lies elsewhere: fetched by its URI, asked in its own format."""

from __future__ import annotations

import hashlib

from backends.tiny_llama import write_tiny_llama
from gateway.served import Served
from headrace.stores.models import PRESETS
from stores.file_server import file_server

LLAMA = PRESETS["llama-3.3-8b-instruct"]
# The tiny model has a token for each special word and each byte of other text.
OPENING = (
    "\n\nCutting Knowledge Date: December 2023\nToday Date: 28 Nov 2026\n\n",
    "\n\nHi!",
    "\n\n",
)
ROLES = ("system", "user", "assistant")
PROMPT_TOKENS = (
    sum(len(text) for text in OPENING + ROLES)
    + 1  # the beginning
    + 2 * len(ROLES)  # around each role
    + 2  # behind the first two turns
)


def test_llama_3_3_is_fetched_from_the_hub_once_and_asked_in_its_format(tmp_path, empty_cache):
    data = write_tiny_llama(tmp_path / "tiny.gguf").read_bytes()
    owner, name, file = LLAMA.source.removeprefix("hf:").split("/")
    with file_server() as hub:
        path = f"/{owner}/{name}/resolve/main/{file}"
        hub.moved[path] = (
            f"{hub.url}/blob",
            {"X-Linked-ETag": f'"{hashlib.sha256(data).hexdigest()}"'},
        )
        hub.put("/blob", data)
        config = {"engine": {"model": LLAMA.name}, "embeddings": {"enabled": False}}
        reach = {"HEADRACE_CACHE": str(empty_cache), "HF_ENDPOINT": hub.url}
        for _ in range(2):
            served = Served(tmp_path, config, **reach)
            try:
                served.wait_until_ready()
                reply = served.chat("Hi!", model=LLAMA.name, max_tokens=1)
            finally:
                served.stop()
            assert reply.status == 200, reply.body
            assert reply.json["usage"]["prompt_tokens"] == PROMPT_TOKENS
        assert hub.paths().count("/blob") == 1
