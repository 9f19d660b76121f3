"""The providers that we know: one row each, with the page that says so.

Where a setting is refused here, the provider would answer 400 or leave it out without a word.
"""

from __future__ import annotations

from typing import Any

from headrace.backends.row import Inference, Provider, Structured
from headrace.wire.openai_params import OPENAI, OPENAI_RESPONSES, RESPONSES, Dialect

# Sampling settings that engines have and OpenAI's own format has not.
_NOT_OPENAI = frozenset({"top_k", "min_p", "repetition_penalty"})

# Engines hold whatever model they run to a schema, and do not show it the schema.
ENGINE = Structured(modes=("schema", "json", "prompt"), models=("*",), told=True)

# What a server of text completions alone, in Triton's form, has no words for.
_NOT_TEXTS = frozenset(
    [
        *("tools", "tool_choice", "parallel_tool_calls", "response_schema", "response_format"),
        *("logprobs", "top_logprobs", "logit_bias", "n", "reasoning_effort", "suffix"),
    ]
)
_NO_CHATS: dict[str, Any] = {"chat_path": None, "embeddings_path": None}

# What Triton has whatever computes behind it.
_TRITON: dict[str, Any] = {
    "format": "kserve",
    "base_url": "http://127.0.0.1:8000",
    "base_url_env": ("TRITON_BASE_URL",),
    "key_env": ("TRITON_API_KEY",),
    "completions_path": "/v2/models/{model}/generate",
    "completions_stream_path": "/v2/models/{model}/generate_stream",
    "models_path": "/v2/repository/index",
    "models_method": "POST",
    "ready_path": "/v2/health/ready",
    "echoes": False,
    "structured": Structured(modes=("prompt",)),
    "prompt_template": "plain",
    "inference": Inference(binary=True),
    **_NO_CHATS,
}

HOSTED: tuple[Provider, ...] = (
    # https://platform.openai.com/docs/api-reference/chat/create; the strict rules for schemas:
    # https://platform.openai.com/docs/guides/structured-outputs#supported-schemas
    Provider(
        name="openai",
        base_url="https://api.openai.com/v1",
        base_url_env=("OPENAI_BASE_URL",),
        key_env=("OPENAI_API_KEY",),
        needs_key=True,
        dialect=OPENAI,
        unsupported=_NOT_OPENAI,
        prices="openai",
        structured=Structured(strict=("*",)),
        batch="openai",  # https://platform.openai.com/docs/guides/batch
    ),
    # https://platform.openai.com/docs/api-reference/responses/create: the same models by the newer
    # format, which shows summaries of their reasoning and takes it back sealed.
    Provider(
        name="openai-responses",
        format="openai-responses",
        base_url="https://api.openai.com/v1",
        base_url_env=("OPENAI_BASE_URL",),
        key_env=("OPENAI_API_KEY",),
        needs_key=True,
        chat_path="/responses",
        completions_path=None,
        dialect=OPENAI_RESPONSES,
        unsupported=_NOT_OPENAI
        | {"stop", "seed", "frequency_penalty", "presence_penalty", "logit_bias", "n"},
        stream_usage=False,
        prices="openai",
    ),
    # https://learn.microsoft.com/azure/ai-services/openai/reference: the model is a deployment
    # and stands in the path, the version in the query. The base is the resource's endpoint,
    # https://<resource>.openai.azure.com.
    Provider(
        name="azure",
        base_url_env=("AZURE_OPENAI_ENDPOINT",),
        key_env=("AZURE_OPENAI_API_KEY",),
        needs_key=True,
        key_header="api-key",
        key_scheme="",
        query={"api-version": "2024-10-21"},
        chat_path="/openai/deployments/{model}/chat/completions",
        completions_path="/openai/deployments/{model}/completions",
        embeddings_path="/openai/deployments/{model}/embeddings",
        models_path="/openai/models",
        dialect=OPENAI,
        unsupported=_NOT_OPENAI,
        prices="azure",
        structured=Structured(strict=("*",)),
        services=frozenset(
            {
                "audio/transcriptions",
                "audio/translations",
                "audio/speech",
                "images/generations",
                "images/edits",
            }
        ),
    ),
    # https://console.groq.com/docs/openai ("Currently Unsupported OpenAI Features") and
    # https://console.groq.com/docs/api-reference#chat-create ("not yet supported by any of our
    # models": the penalties, logit_bias, logprobs; n is 1). Which models take a schema, and which
    # are held to it in strict mode: https://console.groq.com/docs/structured-outputs
    Provider(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        key_env=("GROQ_API_KEY",),
        needs_key=True,
        completions_path=None,
        embeddings_path=None,
        dialect=OPENAI,
        unsupported=_NOT_OPENAI
        | {"frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "n"},
        ignored=frozenset({"metadata", "store"}),
        prices="groq",
        structured=Structured(
            models=("gpt-oss-*", "llama-4-*", "kimi-k2*"), strict=("gpt-oss-20b", "gpt-oss-120b")
        ),
        batch="openai",  # https://console.groq.com/docs/batch
        # https://console.groq.com/docs/api-reference#audio
        services=frozenset({"audio/transcriptions", "audio/translations", "audio/speech"}),
    ),
    # https://docs.mistral.ai/api/#tag/chat: further fields are refused (422), stream_options
    # among them; the last chunk has the usage. Schemas:
    # https://docs.mistral.ai/capabilities/structured-output/custom_structured_output/
    Provider(
        name="mistral",
        base_url="https://api.mistral.ai/v1",
        key_env=("MISTRAL_API_KEY",),
        needs_key=True,
        completions_path=None,
        dialect=Dialect(seed="random_seed", reasoning=None, marks_prefix=True),
        unsupported=frozenset({"min_p", "logit_bias", "user"}),
        stream_usage=False,
        prices="mistral",
        structured=Structured(models=("*",)),
        batch="mistral",  # https://docs.mistral.ai/capabilities/batch/
        # The paths of its SDK (mistralai 3.7.0).
        services=frozenset({"audio/transcriptions", "audio/speech", "moderations"}),
    ),
    # https://api-docs.deepseek.com/api/create-chat-completion: no seed, n, top_k or logit_bias;
    # response_format is text or json_object. Thinking models take the penalties and do nothing
    # with them (https://api-docs.deepseek.com/guides/thinking_mode), and the penalties are
    # deprecated for the others.
    Provider(
        name="deepseek",
        base_url="https://api.deepseek.com",
        key_env=("DEEPSEEK_API_KEY",),
        needs_key=True,
        completions_path=None,
        embeddings_path=None,
        unsupported=_NOT_OPENAI | {"seed", "n", "logit_bias", "response_schema"},
        ignored=frozenset({"frequency_penalty", "presence_penalty", "parallel_tool_calls", "user"}),
        prices="deepseek",
        # https://api-docs.deepseek.com/guides/json_mode. Not by a tool: thinking models refuse to
        # be told which one to call.
        structured=Structured(modes=("json", "prompt")),
        services=frozenset(),
    ),
    # https://openrouter.ai/docs/api-reference/parameters: what a model's host does not support is
    # left out without a word, unless require_parameters is set
    # (https://openrouter.ai/docs/features/provider-routing#requiring-providers-to-support-all-parameters).
    Provider(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        key_env=("OPENROUTER_API_KEY",),
        needs_key=True,
        dialect=Dialect(reasoning="reasoning"),
        unsupported=frozenset({"n"}),
        # "Full usage details are always included", and the question for them has no effect
        # (https://openrouter.ai/docs/use-cases/usage-accounting).
        stream_usage=False,
        defaults={"provider": {"require_parameters": True}},
        # https://openrouter.ai/docs/api-reference/streaming#stream-cancellation
        asked_whole=False,
        prices="openrouter",
        # https://openrouter.ai/docs/features/structured-outputs
        structured=Structured(strict=("*",)),
        services=frozenset(),
    ),
    # https://docs.together.ai/reference/chat-completions-1: logprobs is a number of alternatives.
    Provider(
        name="together",
        base_url="https://api.together.ai/v1",
        key_env=("TOGETHER_API_KEY",),
        needs_key=True,
        dialect=Dialect(counted_logprobs=True),
        unsupported=frozenset({"parallel_tool_calls"}),
        ignored=frozenset({"user"}),
        rerank_path="/rerank",  # https://docs.together.ai/reference/rerank-1
        prices="together",
        # https://docs.together.ai/reference
        services=frozenset(
            {"audio/transcriptions", "audio/translations", "audio/speech", "images/generations"}
        ),
    ),
    # https://docs.fireworks.ai/api-reference/post-chatcompletions;
    # https://docs.fireworks.ai/structured-responses/structured-response-formatting ("all models")
    Provider(
        name="fireworks",
        base_url="https://api.fireworks.ai/inference/v1",
        key_env=("FIREWORKS_API_KEY",),
        needs_key=True,
        prices="fireworks",
        structured=Structured(models=("*",)),
        services=frozenset(),
    ),
    # https://docs.x.ai/docs/api-reference#chat-completions (logit_bias: "unsupported"). Reasoning
    # models refuse the penalties and stop by name themselves. Schemas:
    # https://docs.x.ai/docs/guides/structured-outputs
    Provider(
        name="xai",
        base_url="https://api.x.ai/v1",
        key_env=("XAI_API_KEY",),
        needs_key=True,
        embeddings_path=None,
        dialect=OPENAI,
        unsupported=_NOT_OPENAI | {"logit_bias"},
        prices="x-ai",
        structured=Structured(models=("grok-*",)),
        # https://docs.x.ai/docs/api-reference#image-generations
        services=frozenset({"images/generations", "images/edits"}),
    ),
    # https://docs.cohere.com/reference/rerank; conversations and vectors by
    # https://docs.cohere.com/docs/compatibility-api, whose lists say what it takes: no logit_bias,
    # top_logprobs, n, parallel_tool_calls, user, metadata or store. The base is without a version.
    Provider(
        name="cohere",
        format="cohere",
        base_url="https://api.cohere.ai",
        base_url_env=("CO_API_URL",),
        key_env=("CO_API_KEY", "COHERE_API_KEY"),
        needs_key=True,
        chat_path="/compatibility/v1/chat/completions",
        completions_path=None,
        embeddings_path="/compatibility/v1/embeddings",
        rerank_path="/v2/rerank",
        models_path="/v1/models",
        dialect=Dialect(reasoning=None),
        unsupported=_NOT_OPENAI | {"logit_bias", "logprobs", "top_logprobs", "n"},
        ignored=frozenset({"metadata", "parallel_tool_calls", "store", "user"}),
        prices="cohere",
        structured=Structured(models=("command-*",)),
    ),
    # https://api.jina.ai/redoc: rankings and vectors, and no conversations.
    Provider(
        name="jina",
        base_url="https://api.jina.ai/v1",
        base_url_env=("JINA_BASE_URL",),
        key_env=("JINA_API_KEY",),
        needs_key=True,
        chat_path=None,
        completions_path=None,
        rerank_path="/rerank",
        ignored=frozenset({"user"}),
        services=frozenset(),
    ),
    # https://platform.claude.com/docs/en/api/messages: a body's further fields are refused by name.
    # The base is without /v1, as its own SDKs have it in ANTHROPIC_BASE_URL.
    Provider(
        name="anthropic",
        format="anthropic",
        base_url="https://api.anthropic.com",
        base_url_env=("ANTHROPIC_BASE_URL",),
        key_env=("ANTHROPIC_API_KEY",),
        needs_key=True,
        key_header="x-api-key",
        key_scheme="",
        headers={"anthropic-version": "2023-06-01"},
        chat_path="/v1/messages",
        completions_path=None,
        embeddings_path=None,
        models_path="/v1/models",
        count_path="/v1/messages/count_tokens",
        unsupported=frozenset(
            {
                *("n", "seed", "min_p", "frequency_penalty", "presence_penalty"),
                *("repetition_penalty", "logit_bias", "logprobs", "top_logprobs"),
                "response_format",
            }
        ),
        stream_usage=False,
        prices="anthropic",
        # https://platform.claude.com/docs/en/build-with-claude/structured-outputs
        structured=Structured(
            modes=("schema", "tool", "prompt"),
            models=("claude-*-4-[5-9]*", "claude-opus-4-1*", "claude-*-[5-9]*"),
        ),
        # https://platform.claude.com/docs/en/build-with-claude/batch-processing
        batch="anthropic",
    ),
    # https://ai.google.dev/api/generate-content: the model and the method stand in the path. The
    # same models by OpenAI's format (https://ai.google.dev/gemini-api/docs/openai) are a row of
    # one's own, like openai-compatible; it has no signatures of thoughts, and no counts of tokens.
    Provider(
        name="gemini",
        format="gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_env=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        needs_key=True,
        key_header="x-goog-api-key",
        key_scheme="",
        chat_path="/models/{model}:generateContent",
        stream_path="/models/{model}:streamGenerateContent?alt=sse",
        completions_path=None,
        embeddings_path="/models/{model}:batchEmbedContents",
        models_path="/models?pageSize=1000",
        count_path="/models/{model}:countTokens",
        unsupported=frozenset({"min_p", "repetition_penalty", "logit_bias"}),
        ignored=frozenset({"parallel_tool_calls", "user"}),
        stream_usage=False,
        prices="google",
        # https://ai.google.dev/gemini-api/docs/structured-output
        structured=Structured(models=("gemini-*",)),
    ),
)

# Servers of one's own, at the place where each listens if it is not told otherwise.
SELF_HOSTED: tuple[Provider, ...] = (
    # https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
    Provider(
        name="vllm",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env=("VLLM_BASE_URL",),
        key_env=("VLLM_API_KEY",),
        rerank_path="/rerank",
        metrics_path="/metrics",
        structured=ENGINE,
        # "This will be ignored by vLLM" (vllm/entrypoints/openai/chat_completion/protocol.py).
        ignored=frozenset({"user"}),
        services=frozenset({"audio/transcriptions", "audio/translations"}),
    ),
    # https://docs.sglang.ai/basic_usage/openai_api_completions.html
    Provider(
        name="sglang",
        base_url="http://127.0.0.1:30000/v1",
        base_url_env=("SGLANG_BASE_URL",),
        key_env=("SGLANG_API_KEY",),
        rerank_path="/rerank",
        metrics_path="/metrics",
        structured=ENGINE,
    ),
    # https://docs.modular.com/max/api/serve; its schema refuses unknown fields. Schemas are held to
    # where it was started with --enable-structured-output:
    # https://docs.modular.com/max/serve/structured-output
    Provider(
        name="max",
        base_url="http://127.0.0.1:8000/v1",
        base_url_env=("MAX_BASE_URL",),
        key_env=("MAX_SERVE_API_KEY",),
        metrics_path="/metrics",
        metrics_port=8001,  # MAX_SERVE_METRICS_ENDPOINT_PORT
        structured=Structured(modes=("prompt", "schema")),
        asked_whole=False,
    ),
    # https://lmstudio.ai/docs/developer/openai-compat/chat-completions ("supported payload
    # parameters": the rest is left out); https://lmstudio.ai/docs/developer/core/authentication
    Provider(
        name="lmstudio",
        base_url="http://127.0.0.1:1234/v1",
        base_url_env=("LMSTUDIO_BASE_URL",),
        key_env=("LM_API_TOKEN",),
        dialect=Dialect(repetition_penalty="repeat_penalty"),
        unsupported=frozenset({"min_p", "n", "logprobs", "top_logprobs"}),
        ignored=frozenset({"user", "parallel_tool_calls"}),
        # https://lmstudio.ai/docs/developer/openai-compat/structured-output; no JSON mode.
        structured=Structured(modes=("schema", "prompt"), models=("*",), told=True),
        asked_whole=False,  # llama.cpp is inside
        services=frozenset(),
    ),
    # https://docs.ollama.com/api (source of 0.32.15): its own format, which has all of a model's
    # settings, what is to become of it in memory, and how long everything took. A key is asked for
    # by ollama.com alone.
    Provider(
        name="ollama",
        format="ollama",
        base_url="http://127.0.0.1:11434",
        base_url_env=("OLLAMA_BASE_URL", "OLLAMA_HOST"),
        key_env=("OLLAMA_API_KEY",),
        chat_path="/api/chat",
        completions_path="/api/generate",
        embeddings_path="/api/embed",
        models_path="/api/tags",
        metrics_path="/api/ps",
        unsupported=frozenset({"logit_bias", "n", "tool_choice"}),
        ignored=frozenset({"user", "parallel_tool_calls"}),
        stream_usage=False,
        echoes=False,
        structured=ENGINE,
        asked_whole=False,  # llama.cpp is inside
    ),
    # The same server by https://docs.ollama.com/api/openai-compatibility (source of 2026-08):
    # fields that it does not know are left out without a word.
    Provider(
        name="ollama-openai",
        base_url="http://127.0.0.1:11434/v1",
        base_url_env=("OLLAMA_BASE_URL",),
        unsupported=_NOT_OPENAI | {"logit_bias", "n", "tool_choice"},
        ignored=frozenset({"user", "parallel_tool_calls", "metadata", "store"}),
        metrics_path="/api/ps",
        structured=ENGINE,
        asked_whole=False,  # llama.cpp is inside
        services=frozenset({"images/generations"}),
    ),
    # https://huggingface.co/docs/text-generation-inference/reference/api_reference and its source of
    # 2026-01: logit_bias and n are "UNUSED", fields that it does not know are left out without a word.
    Provider(
        name="tgi",
        base_url="http://127.0.0.1:3000/v1",
        base_url_env=("TGI_BASE_URL",),
        key_env=("TGI_API_KEY",),
        unsupported=_NOT_OPENAI | {"logit_bias", "n", "reasoning_effort"},
        ignored=frozenset({"user", "parallel_tool_calls", "metadata", "store"}),
        embeddings_path=None,
        metrics_path="/metrics",
        structured=ENGINE,
        asked_whole=False,
        services=frozenset(),
    ),
    # https://huggingface.co/docs/text-embeddings-inference and its source of 2026-07: of OpenAI's
    # format it has /v1/embeddings alone, and no list of models.
    Provider(
        name="tei",
        base_url="http://127.0.0.1:3000/v1",
        base_url_env=("TEI_BASE_URL",),
        key_env=("TEI_API_KEY",),
        chat_path=None,
        completions_path=None,
        services=frozenset(),
    ),
    # The same two servers by what is their own, which OpenAI's format has no place for. They have
    # names of their own because their base ends before /v1: an address that is set up for the
    # others goes on meaning what it did.
    Provider(
        name="tgi-native",
        format="tgi",
        base_url="http://127.0.0.1:3000",
        base_url_env=("TGI_NATIVE_BASE_URL",),
        key_env=("TGI_API_KEY",),
        # Conversations are the other row's: what they can be asked for differs.
        chat_path=None,
        completions_path="/generate",
        completions_stream_path="/generate_stream",
        embeddings_path=None,
        models_path="/v1/models",
        metrics_path="/metrics",
        unsupported=frozenset(
            {
                *("min_p", "presence_penalty", "logit_bias", "n", "reasoning_effort", "suffix"),
                *("tools", "tool_choice"),
            }
        ),
        ignored=frozenset({"user", "parallel_tool_calls", "metadata", "store"}),
        echoes=False,
        stop_in_text=True,
        structured=ENGINE,
        asked_whole=False,
    ),
    Provider(
        name="tei-native",
        format="tei",
        base_url="http://127.0.0.1:3000",
        base_url_env=("TEI_NATIVE_BASE_URL",),
        key_env=("TEI_API_KEY",),
        chat_path=None,
        completions_path=None,
        embeddings_path="/embed",
        rerank_path="/rerank",
        classify_path="/predict",
        models_path="/info",
        metrics_path="/metrics",
        ignored=frozenset({"user"}),
    ),
    # https://docs.openvino.ai/latest/model-server/ovms_docs_rest_api_chat.html (source of 2026-08)
    Provider(
        name="ovms",
        base_url="http://127.0.0.1:8000/v3",
        base_url_env=("OVMS_BASE_URL",),
        key_env=("OVMS_API_KEY",),
        rerank_path="/rerank",
        unsupported=frozenset({"logit_bias"}),
        ignored=frozenset({"user"}),
        structured=ENGINE,
        asked_whole=False,
        # https://docs.openvino.ai/latest/model-server/ovms_docs_clients_genai.html
        services=frozenset(
            {
                "audio/transcriptions",
                "audio/translations",
                "audio/speech",
                "images/generations",
                "images/edits",
            }
        ),
        # Beside them it serves models of any kind by KServe's protocol:
        # https://docs.openvino.ai/latest/model-server/ovms_docs_rest_api_kfs.html
        ready_path="/v2/health/ready",
        inference=Inference(binary=True),
    ),
    # The Open Inference Protocol, whoever speaks it. The list of models is an extension:
    # https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_model_repository.md
    Provider(
        name="kserve",
        format="kserve",
        base_url="http://127.0.0.1:8080",
        base_url_env=("KSERVE_BASE_URL",),
        key_env=("KSERVE_API_KEY",),
        completions_path=None,
        models_path="/v2/repository/index",
        models_method="POST",
        ready_path="/v2/health/ready",
        unsupported=_NOT_TEXTS,
        ignored=frozenset({"user"}),
        echoes=False,
        structured=Structured(modes=("prompt",)),
        prompt_template="plain",
        inference=Inference(text_input="text_input"),
        **_NO_CHATS,
    ),
    # https://github.com/triton-inference-server/vllm_backend (src/utils/request.py of 2026): the prompt
    # is repeated before an answer unless that is turned off; why it ended and what it used is told to
    # those who ask.
    Provider(
        name="triton",
        unsupported=_NOT_TEXTS,
        ignored=frozenset({"user"}),
        defaults={
            "exclude_input_in_output": True,
            "return_finish_reason": True,
            "return_num_input_tokens": True,
            "return_num_output_tokens": True,
        },
        **_TRITON,
    ),
    # https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/docs/model_config.md:
    # whether the prompt is repeated stands in the model's own configuration, and nothing tells why an
    # answer ended.
    Provider(
        name="tensorrt-llm",
        dialect=Dialect(seed="random_seed", stop="stop_words"),
        unsupported=_NOT_TEXTS | {"min_p"},
        ignored=frozenset({"user"}),
        **_TRITON,
    ),
    # https://www.tensorflow.org/tfx/serving/api_rest, and OpenVINO Model Server's older form, whose list
    # of models is its own.
    Provider(
        name="tensorflow",
        format="tensorflow",
        base_url="http://127.0.0.1:8501",
        base_url_env=("TENSORFLOW_SERVING_BASE_URL",),
        key_env=("TENSORFLOW_SERVING_API_KEY",),
        completions_path=None,
        models_path="/v1/config",
        inference=Inference(
            form="tensorflow",
            path="/v1/models/{model}[/versions/{version}]:predict",
            metadata_path=None,
        ),
        **_NO_CHATS,
    ),
    # https://github.com/opea-project/GenAIComps/tree/main/comps/llms/src/text-generation: the chat
    # microservice, which hands what it is asked to a server of OpenAI's form behind it.
    Provider(
        name="opea",
        format="opea",
        base_url="http://127.0.0.1:9000/v1",
        base_url_env=("OPEA_BASE_URL",),
        key_env=("OPEA_API_KEY",),
        completions_path=None,
        embeddings_path=None,
        asked_whole=False,
        structured=Structured(modes=("schema", "json", "prompt"), told=True),
    ),
    # https://github.com/opea-project/GenAIExamples (ChatQnA/chatqna.py, CodeGen/codegen.py and
    # DocSum/docsum.py of 2025): of what they are asked they hand on these settings and no others.
    *(
        Provider(
            name=f"opea-{service}",
            format="opea",
            base_url=f"http://127.0.0.1:{port}/v1",
            base_url_env=(f"OPEA_{service.upper()}_BASE_URL",),
            key_env=("OPEA_API_KEY",),
            chat_path=f"/{service}",
            completions_path=None,
            embeddings_path=None,
            ready_path="/v1/health_check",
            unsupported=_NOT_TEXTS | {"stop", "seed", "min_p"},
            ignored=frozenset({"user"}),
            defaults=defaults,
            stream_usage=False,
            asked_whole=False,
            structured=Structured(modes=("prompt",)),
        )
        for service, port, defaults in (
            ("chatqna", 8888, {}),
            ("codegen", 7778, {}),
            ("docsum", 8888, {"type": "text"}),
        )
    ),
    # A model, or any function, that is asked by plain values; `headrace serve-functions` is such a
    # server. What of a request is a setting becomes a parameter, which the function takes or refuses.
    Provider(
        name="inference",
        format="inference",
        base_url="http://127.0.0.1:8100",
        base_url_env=("INFERENCE_BASE_URL",),
        key_env=("INFERENCE_API_KEY",),
        completions_path=None,
        unsupported=_NOT_TEXTS,
        ignored=frozenset({"user"}),
        echoes=False,
        structured=Structured(modes=("prompt",)),
        prompt_template="plain",
        inference=Inference(
            form="values",
            path="/models/{model}/infer",
            metadata_path=None,
            statistics_path="/models/{model}/statistics",
            text_input="input",
        ),
        **_NO_CHATS,
    ),
    # Whatever else speaks the format; its place and key are the user's to say.
    # Most have no batch API, and say so when they are asked; our gateway has one.
    # So it is with rankings, for which most have Jina's form.
    Provider(name="openai-compatible", asked_whole=False, batch="openai", rerank_path="/rerank"),
    # The same for servers of the Responses format; https://www.openresponses.org/specification
    Provider(
        name="open-responses",
        format="openai-responses",
        chat_path="/responses",
        completions_path=None,
        dialect=RESPONSES,
        unsupported=frozenset({"n"}),
        stream_usage=False,
        asked_whole=False,
    ),
)
