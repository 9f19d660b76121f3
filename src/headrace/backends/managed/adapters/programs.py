"""The programs whose ways a row says: one each, with what it was checked against.

Each was checked against the pages named, as of the dates named; docs/how-to/engines.md says which
were also started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from headrace.backends.managed.adapters.program import Program, Serve
from headrace.contracts.engines import EngineConfig
from headrace.stores.models.store import default_cache

# A directory is all there is to load: nobody needs to be asked for a newer revision of it.
_OFFLINE = {"HF_HUB_OFFLINE": "1"}


def _max_devices(config: EngineConfig, has_gpu: bool) -> Mapping[str, str]:
    if not has_gpu:
        # What it would pick by itself, bfloat16, its CPU kernels do not compute with.
        return {"--devices": "cpu"} | (
            {} if config.dtype is not None else {"--quantization-encoding": "float32"}
        )
    # CUDA_VISIBLE_DEVICES has numbered anew those that it sees.
    gpus = config.tensor_parallel_size or len(config.gpu_ids)
    return {"--devices": "gpu:" + ",".join(map(str, range(gpus)))} if gpus else {}


def _ollama_names(model: str) -> tuple[str, ...]:
    return (f"{model}:latest",) if ":" not in model else (model.removesuffix(":latest"),)


def _ovms_serve(model: str) -> Serve:
    if Path(model).is_dir():
        name = Path(model).name
        return Serve(("--model_path", str(Path(model).absolute()), "--model_name", name), name)
    # It fetches and converts the model by itself, and keeps it there.
    kept = ("--model_repository_path", str(default_cache() / "ovms"))
    return Serve(("--source_model", model, *kept, "--task", "text_generation"), model)


# https://docs.vllm.ai/en/latest/cli/serve.html and `vllm serve --help=all` of 0.32; on a CPU
# https://docs.vllm.ai/en/latest/getting_started/installation/cpu.html.
VLLM = Program(
    names=("vllm_api", "vllm"),
    provider="vllm",
    default_port=8000,
    program="vllm",
    install="pip install vllm",
    words=("serve", "{model}"),
    help=("serve", "--help=all"),
    name_flag="--served-model-name",
    key_variable="VLLM_API_KEY",
    flags={
        "dtype": "--dtype",
        "gpu_memory_utilization": "--gpu-memory-utilization",
        "max_model_len": "--max-model-len",
        "tensor_parallel_size": "--tensor-parallel-size",
        "enable_reasoning": "--enable-reasoning",
        "reasoning_parser": "--reasoning-parser",
    },
    # Dropped in 0.10: https://docs.vllm.ai/en/latest/features/reasoning_outputs.html
    retired={
        "--enable-reasoning": "this version tells reasoning apart where reasoning_parser names how"
    },
    offline=_OFFLINE,
    # Binding threads to cores by itself it fails where a container shows it no NUMA nodes.
    variables_without_gpu={"VLLM_CPU_OMP_THREADS_BIND": "nobind"},
)

# https://docs.modular.com/max/cli/serve and `max serve --help` of 26.6; the address it listens on
# is a variable only.
MAX = Program(
    names=("max",),
    provider="max",
    default_port=8000,
    program="max",
    install='pip install "max[serve]"',
    words=("serve", "--model", "{model}"),
    help=("serve", "--help"),
    host_flag=None,
    model_flags=("--model", "--model-path"),
    name_flag="--served-model-name",
    key_flag=None,
    flags={
        "dtype": "--quantization-encoding",
        "gpu_memory_utilization": "--device-memory-utilization",
        "max_model_len": "--max-length",
        "reasoning_parser": "--reasoning-parser",
    },
    more=_max_devices,
    by_more=frozenset({"tensor_parallel_size"}),
    env={"MAX_SERVE_HOST": "{host}"},
    metrics_variable="MAX_SERVE_METRICS_ENDPOINT_PORT",
    offline=_OFFLINE,
    ready_path="/v1/health",
)

# https://docs.sglang.io/advanced_features/server_arguments.html (2026-11)
SGLANG = Program(
    names=("sglang",),
    provider="sglang",
    default_port=30000,
    program="sglang",
    install='pip install "sglang[all]"',
    words=("serve", "--model-path", "{model}", "--enable-metrics"),
    help=("serve", "--help"),
    model_flags=("--model-path", "--model"),
    name_flag="--served-model-name",
    flags={
        "dtype": "--dtype",
        "gpu_memory_utilization": "--mem-fraction-static",
        "max_model_len": "--context-length",
        "tensor_parallel_size": "--tp-size",
        "reasoning_parser": "--reasoning-parser",
    },
    offline=_OFFLINE,
)

# https://huggingface.co/docs/text-generation-inference/reference/launcher and its source of 2026-01
TGI = Program(
    names=("tgi",),
    provider="tgi",
    default_port=3000,
    program="text-generation-launcher",
    install="cargo or docker, as "
    "https://huggingface.co/docs/text-generation-inference/installation says",
    words=("--model-id", "{model}"),
    host_flag="--hostname",
    model_flags=("--model-id",),
    key_variable="API_KEY",
    flags={
        "dtype": "--dtype",
        "gpu_memory_utilization": "--cuda-memory-fraction",
        "max_model_len": "--max-total-tokens",
        "tensor_parallel_size": "--num-shard",
    },
    offline=_OFFLINE,
)

# https://huggingface.co/docs/text-embeddings-inference/cli_arguments and its source of 2026-07.
TEI = Program(
    names=("tei",),
    provider="tei",
    default_port=3000,
    program="text-embeddings-router",
    install="cargo or docker, as "
    "https://huggingface.co/docs/text-embeddings-inference/local_cpu says",
    words=("--model-id", "{model}"),
    host_flag="--hostname",
    model_flags=("--model-id",),
    name_flag="--served-model-name",
    key_variable="API_KEY",
    flags={"dtype": "--dtype"},
    offline=_OFFLINE,
)

# https://docs.ollama.com/faq and https://docs.ollama.com/api (source of 0.32.15). It serves every
# model that was pulled, and has no key. Its models are looked for in OpenAI's form, as all are.
OLLAMA = Program(
    names=("ollama_api", "ollama"),
    provider="ollama",
    default_port=11434,
    program="ollama",
    install="curl -fsSL https://ollama.com/install.sh | sh",
    words=("serve",),
    help=("serve", "--help"),
    host_flag=None,
    port_flag=None,
    model_flags=(),
    key_flag=None,
    variables={"max_model_len": "OLLAMA_CONTEXT_LENGTH"},
    env={"OLLAMA_HOST": "{host}:{port}"},
    ready_path="/",
    other_names=_ollama_names,
)

# https://docs.openvino.ai/latest/model-server/ovms_docs_parameters.html and
# https://docs.openvino.ai/latest/model-server/ovms_docs_rest_api_kfs.html (source of 2026-08).
# Generation lies under /v3, readiness under KServe's /v2.
OVMS = Program(
    names=("ovms",),
    provider="ovms",
    default_port=8000,
    program="ovms",
    install="the package that "
    "https://docs.openvino.ai/latest/model-server/ovms_docs_deploying_server_baremetal.html names",
    serve=_ovms_serve,
    host_flag="--rest_bind_address",
    port_flag="--rest_port",
    model_flags=("--model_path", "--source_model"),
    name_flag="--model_name",
    key_flag="--api_key_file",
    key_variable="API_KEY",
    flags={"reasoning_parser": "--reasoning_parser"},
    base_path="/v3",
    ready_path="/v2/health/ready",
)

PROGRAMS = (VLLM, MAX, SGLANG, TGI, TEI, OLLAMA, OVMS)
