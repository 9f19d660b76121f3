"""Every program is started as its makers say, with what the user asked for and nothing unsaid."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest
from attrs import evolve

from backends.managed.engines import answer, managed, no_process_left
from backends.managed.programs import ROWS, asked_of, engine, install, with_gpus
from headrace.backends.managed.adapters import adapter_for, known_backends
from headrace.backends.managed.adapters.flags import read_help
from headrace.backends.managed.adapters.llama_server import LLAMA_SERVER
from headrace.backends.managed.adapters.programs import MAX, OLLAMA, OVMS, TEI, VLLM
from headrace.backends.managed.launch import ProgramMissingError
from headrace.backends.providers import FORMATS, PROVIDERS
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError
from headrace.stores.secret import Secret

PORT = 8123
SETTINGS = {
    "dtype": "bfloat16",
    "gpu_memory_utilization": 0.5,
    "max_model_len": 2048,
    "tensor_parallel_size": 2,
    "reasoning_parser": "deepseek_r1",
}
rows = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.names[0])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """What programs told of their flags is kept for this test alone."""
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bin_(tmp_path):
    return install(tmp_path / "bin")


def launch(row, folder, *, gpus=False, **fields):
    return with_gpus(row, gpus=gpus).launch(engine(row, folder, **fields), "127.0.0.1", PORT)


def flags(launched):
    """The command line without its program."""
    return launched.argv[1:]


@rows
def test_a_program_is_started_asked_and_ended(row, bin_, tmp_path):
    async def run():
        config = engine(row, bin_)
        async with managed(config, tmp_path / "state") as started:
            url = await started.ensure_running()
            assert url == f"http://127.0.0.1:{started.snapshot().port}{row.base_path}"
            if row is not TEI:
                assert await answer(started)
        assert no_process_left(tmp_path / "state")

    asyncio.run(run())


@rows
def test_a_program_asks_its_callers_for_the_key_that_its_entry_has(row, bin_, tmp_path):
    if row.key_variable is None:
        with pytest.raises(LLMInvalidRequestError, match="api_key is given"):
            launch(row, bin_, api_key="sk-1")
        return

    async def run():
        config = engine(row, bin_, api_key="sk-secret-of-this-test")
        key = Secret("sk-secret-of-this-test")
        async with managed(config, tmp_path / "state", key=key) as started:
            await started.ensure_running()
            assert "sk-secret" not in " ".join(started.snapshot().command)
            assert "sk-secret" not in "".join(asked_of(bin_))
        async with managed(evolve(config, api_key=None), tmp_path / "state") as started:
            await started.ensure_running()

    asyncio.run(run())


@rows
def test_a_missing_program_is_told_of_with_what_installs_it(row, tmp_path):
    if row is LLAMA_SERVER:
        pytest.skip("the wheel that we depend on has it")
    config = EngineConfig(
        name="x", model="m", backend=row.names[0], extra_env={"PATH": str(tmp_path)}
    )
    with pytest.raises(ProgramMissingError) as missing:
        row.launch(config, "127.0.0.1", PORT)
    assert row.program in str(missing.value)
    assert row.install in str(missing.value)


@rows
@pytest.mark.parametrize(("field", "value"), list(SETTINGS.items()))
def test_a_setting_is_said_to_the_program_or_refused_by_name(row, field, value, bin_):
    said = {**row.flags, **row.variables}
    if field in said:
        launched = launch(row, bin_, gpus=True, **{field: value})
        words = [*launched.argv, *(f"{k} {v}" for k, v in launched.env.items())]
        assert str(value) in words or f"{row.variables.get(field)} {value}" in words
    elif field in row.by_more:
        assert launch(row, bin_, gpus=True, **{field: value}).argv
    else:
        with pytest.raises(LLMInvalidRequestError, match=rf"{field} is .*{value}") as refused:
            launch(row, bin_, **{field: value})
        assert refused.value.param == field


@rows
def test_a_program_that_tells_of_no_such_flag_is_not_given_it(row, bin_):
    if not row.flags:
        return
    field = next(iter(row.flags))
    program = bin_ / row.program
    program.write_text(f"#!{sys.executable} -IS\nprint('  --other X')\n")
    with pytest.raises(LLMInvalidRequestError, match=f"knows no {row.flags[field]}") as refused:
        launch(row, bin_, **{field: SETTINGS[field]})
    assert refused.value.param == field


@rows
def test_the_port_the_host_and_the_model_are_no_flags_of_the_users(row, bin_):
    ours = [each for each in (row.host_flag, row.port_flag, *row.model_flags) if each]
    for flag in ours:
        with pytest.raises(LLMInvalidRequestError, match="is in extra_serve_flags; ") as refused:
            launch(row, bin_, extra_serve_flags=(f"{flag}=1",))
        assert refused.value.param == "extra_serve_flags"


@rows
def test_gpus_are_chosen_by_a_variable(row, bin_):
    assert launch(row, bin_, gpus=True, gpu_ids=(2, 3)).env["CUDA_VISIBLE_DEVICES"] == "2,3"


@rows
def test_every_row_has_a_provider_whose_usual_place_is_the_programs(row):
    provider = PROVIDERS[row.provider]
    base = "" if FORMATS[provider.format].at_root else row.base_path
    assert provider.base_url == f"http://127.0.0.1:{row.default_port}{base}"


def test_every_name_leads_to_its_program():
    for name in ("vllm_api", "vllm", "ollama_api", "ollama", "max", "llama-server", "sglang"):
        assert name in adapter_for(name).names
    assert {"tgi", "tei", "ovms", "command"} <= known_backends().keys()


def test_vllm_is_started_as_on_a_machine_without_gpu(bin_, tmp_path):
    launched = launch(
        VLLM,
        bin_,
        model=str(tmp_path),
        dtype="bfloat16",
        max_model_len=2048,
        extra_serve_flags=("--enforce-eager", "--max-num-seqs", "32"),
        extra_env={"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "2"},
    )
    assert launched.argv[0] == str(bin_ / "vllm")
    assert flags(launched) == (
        *("serve", str(tmp_path), "--host", "127.0.0.1", "--port", str(PORT)),
        *("--dtype", "bfloat16", "--max-model-len", "2048"),
        *("--enforce-eager", "--max-num-seqs", "32"),
    )
    said = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
    }
    assert said.items() <= launched.env.items()
    assert launched.notes == ()


def test_nothing_is_set_for_a_cpu_where_there_is_a_gpu(bin_):
    assert "VLLM_CPU_OMP_THREADS_BIND" not in launch(VLLM, bin_, gpus=True).env
    assert "--devices" not in launch(MAX, bin_, gpus=True).argv


def test_max_is_started_as_on_a_machine_without_gpu(bin_, tmp_path):
    launched = launch(
        MAX,
        bin_,
        model=str(tmp_path),
        max_model_len=2048,
        extra_serve_flags=("--max-batch-size", "32"),
    )
    assert flags(launched) == (
        *("serve", "--model", str(tmp_path), "--port", str(PORT), "--max-length", "2048"),
        *("--devices", "cpu", "--quantization-encoding", "float32", "--max-batch-size", "32"),
    )
    assert launched.env["HF_HUB_OFFLINE"] == "1"
    assert launched.env["MAX_SERVE_HOST"] == "127.0.0.1"


def test_max_takes_as_many_gpus_as_were_named(bin_):
    launched = launch(MAX, bin_, gpus=True, gpu_ids=(2, 5))
    assert flags(launched)[-2:] == ("--devices", "gpu:0,1")
    assert launched.env["CUDA_VISIBLE_DEVICES"] == "2,5"


def test_a_users_own_device_goes_before_the_one_that_follows_from_there_being_no_gpu(bin_):
    launched = launch(MAX, bin_, extra_serve_flags=("--devices=gpu:0",))
    assert "cpu" not in launched.argv
    assert launched.notes == ()


@pytest.mark.parametrize(
    "theirs",
    [
        ("--tensor-parallel-size", "4"),
        ("--tensor-parallel-size=4",),
        ("--tensor_parallel_size=4",),
        ("-tp", "4"),
    ],
)
def test_a_flag_that_is_given_twice_stands_there_once_as_the_users(theirs, bin_):
    launched = launch(VLLM, bin_, tensor_parallel_size=2, extra_serve_flags=theirs)
    assert flags(launched)[-len(theirs) :] == theirs
    assert "2" not in launched.argv
    (note,) = launched.notes
    assert "--tensor-parallel-size is given twice, by tensor_parallel_size" in note


def test_a_flag_that_the_user_gives_twice_is_passed_on_with_a_note(bin_):
    twice = ("--max-num-seqs", "1", "--max-num-seqs=2")
    launched = launch(VLLM, bin_, extra_serve_flags=twice)
    assert flags(launched)[-3:] == twice
    assert launched.notes == (
        "--max-num-seqs is given twice in extra_serve_flags; both are passed on",
    )


def test_the_users_variable_goes_before_a_field_with_a_note(bin_):
    launched = launch(OLLAMA, bin_, max_model_len=4096, extra_env={"OLLAMA_CONTEXT_LENGTH": "9"})
    assert launched.env["OLLAMA_CONTEXT_LENGTH"] == "9"
    assert launched.notes == (
        "OLLAMA_CONTEXT_LENGTH is given twice, by max_model_len and in extra_env; the latter counts",
    )


def test_a_retired_reasoning_flag_is_left_out_with_a_note(bin_):
    launched = launch(VLLM, bin_, enable_reasoning=True, reasoning_parser="deepseek_r1")
    assert flags(launched)[-2:] == ("--reasoning-parser", "deepseek_r1")
    assert "--enable-reasoning is left out" in launched.notes[0]
    with pytest.raises(LLMInvalidRequestError, match="enable_reasoning is True; this version"):
        launch(VLLM, bin_, enable_reasoning=True)


def test_an_older_version_is_given_both_reasoning_flags(bin_):
    program = bin_ / "vllm"
    program.write_text(
        f"#!{sys.executable} -IS\nprint('  --enable-reasoning\\n  --reasoning-parser X')\n"
    )
    launched = launch(VLLM, bin_, enable_reasoning=True, reasoning_parser="deepseek_r1")
    assert flags(launched)[-3:] == ("--enable-reasoning", "--reasoning-parser", "deepseek_r1")


def test_a_program_is_asked_for_its_flags_once_as_long_as_it_is_the_same(bin_):
    def asked():
        return [line for line in asked_of(bin_) if "--help" in line]

    for length in (1024, 2048):
        launch(VLLM, bin_, max_model_len=length)
    assert asked() == ["vllm serve --help=all"]
    os.utime(bin_ / "vllm", (1, 1))
    launch(VLLM, bin_, max_model_len=1024)
    assert len(asked()) == 2


def test_nobody_is_asked_where_there_is_nothing_to_check(bin_):
    launch(VLLM, bin_)
    assert asked_of(bin_) == []


def test_a_program_that_tells_nothing_is_given_what_was_asked_for_with_a_note(bin_):
    (bin_ / "vllm").write_text(f"#!{sys.executable} -IS\nraise SystemExit(3)\n")
    launched = launch(VLLM, bin_, dtype="auto")
    assert flags(launched)[-2:] == ("--dtype", "auto")
    assert "did not tell which flags it knows" in launched.notes[0]


def test_a_named_program_is_the_one_that_is_run(bin_, tmp_path):
    other = install(tmp_path / "other", "vllm")
    launched = launch(VLLM, bin_, program=str(other / "vllm"))
    assert launched.argv[0] == str(other / "vllm")
    with pytest.raises(ProgramMissingError, match="pip install vllm"):
        launch(VLLM, bin_, program=str(tmp_path / "nowhere" / "vllm"))


def test_a_model_has_the_name_that_the_users_flags_give_it(bin_):
    config = engine(VLLM, bin_, extra_serve_flags=("--served-model-name", "a", "b", "--dtype", "x"))
    assert VLLM.launch(config, "127.0.0.1", PORT).model == "a"
    assert VLLM.served_names(config)[:3] == ("a", "b", "stand-in-1")


def test_a_path_that_leads_nowhere_is_refused(bin_):
    with pytest.raises(LLMInvalidRequestError, match="model is '/no/such'; there is no such file"):
        launch(VLLM, bin_, model="/no/such")


def test_ollama_lists_a_model_with_its_tag(bin_):
    assert "llama3.2:latest" in OLLAMA.served_names(engine(OLLAMA, bin_, model="llama3.2"))
    launched = launch(OLLAMA, bin_)
    assert flags(launched) == ("serve",)
    assert launched.env["OLLAMA_HOST"] == f"127.0.0.1:{PORT}"


def test_ovms_serves_a_directory_and_fetches_a_name(bin_, tmp_path):
    folder = tmp_path / "qwen"
    folder.mkdir()
    launched = launch(OVMS, bin_, model=str(folder))
    assert flags(launched)[:4] == ("--model_path", str(folder), "--model_name", "qwen")
    assert launched.model == "qwen"
    assert "--source_model" in launch(OVMS, bin_, model="OpenVINO/Qwen3-8B-int4-ov").argv


def test_llama_server_serves_a_file_and_a_name_of_hugging_face(bin_, tmp_path):
    file = tmp_path / "tiny.Q8_0.gguf"
    file.touch()
    launched = launch(LLAMA_SERVER, bin_, model=str(file), max_model_len=2048)
    assert flags(launched)[:4] == ("--model", str(file), "--alias", "tiny.Q8_0")
    assert flags(launched)[-2:] == ("--ctx-size", "2048")
    assert "--hf-repo" in launch(LLAMA_SERVER, bin_).argv
    named = launch(LLAMA_SERVER, bin_, model=str(file), extra_serve_flags=("--alias", "mine"))
    assert flags(named).count("--alias") == 1
    assert named.model == "mine"
    with pytest.raises(LLMInvalidRequestError, match="no GGUF file, no model known by name"):
        launch(LLAMA_SERVER, bin_, model="nothing")


def test_the_server_of_our_own_wheel_answers_whoever_shows_its_key(box_model, tmp_path):
    config = EngineConfig(
        name="wheel",
        model=str(box_model.path),
        backend="llama-server",
        max_model_len=512,
        api_key="sk-secret-of-this-test",
        extra_serve_flags=("--threads", "1", "--parallel", "2"),
        extra_env={"PATH": str(tmp_path)},
    )

    async def run():
        key = Secret("sk-secret-of-this-test")
        async with managed(config, tmp_path / "state", key=key) as started:
            assert await answer(started)
            assert started.snapshot().model == str(box_model.path)
        assert no_process_left(tmp_path / "state")
        async with managed(evolve(config, model="smoll"), tmp_path / "state") as started:
            with pytest.raises(LLMUnavailableError, match="no GGUF file, no model known by name"):
                await answer(started)

    asyncio.run(run())


def test_the_server_of_our_own_wheel_refuses_flags_that_it_does_not_know(box_model, tmp_path):
    config = EngineConfig(
        name="wheel",
        model=str(box_model.path),
        backend="llama-server",
        reasoning_parser="deepseek",
        extra_env={"PATH": str(tmp_path)},
    )
    with pytest.raises(LLMInvalidRequestError, match="knows no --reasoning-format"):
        LLAMA_SERVER.launch(config, "127.0.0.1", PORT)


@pytest.mark.parametrize(
    ("text", "first_of"),
    [
        (
            "  --tensor-parallel-size TENSOR_PARALLEL_SIZE, -tp TENSOR_PARALLEL_SIZE\n",
            {"tensor-parallel-size": "tensor-parallel-size", "tp": "tensor-parallel-size"},
        ),
        (
            "  --enforce-eager, --no-enforce-eager\n                        --not-a-flag\n",
            {"enforce-eager": "enforce-eager", "no-enforce-eager": "enforce-eager"},
        ),
        ("  --dtype {auto,half}, -d {auto,half}\n", {"dtype": "dtype", "d": "dtype"}),
        (
            "  --model, --model-path TEXT      Either, or --other\n",
            {"model": "model", "model-path": "model"},
        ),
        ("  --emit-x / --no-emit-x\n", {"emit-x": "emit-x", "no-emit-x": "emit-x"}),
        ("  -p, --port <PORT>\n          The port\n", {"p": "p", "port": "p"}),
        ("-m,    --model FNAME      the model's path\n", {"m": "m", "model": "m"}),
        ("      --rest_port arg      a port\n", {"rest-port": "rest-port"}),
    ],
)
def test_help_texts_of_all_makers_are_read(text, first_of):
    assert dict(read_help(text).first_of) == first_of
