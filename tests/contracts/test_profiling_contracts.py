"""The contracts of profiling: what they take, what they refuse, and their OpenAPI document."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from attrs import NOTHING, Factory, exceptions, fields

from headrace.contracts import profiling
from headrace.contracts.convert import from_json, to_json
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profiling import (
    CONTRACTS,
    LLMProfileAccepted,
    LLMProfileReportSummary,
    LLMProfileRequest,
    OperatorSummary,
    ProfileStatus,
    Stats,
)

ROOT = Path(__file__).parents[2]
DOCUMENT = yaml.safe_load((ROOT / "docs" / "openapi.yaml").read_text())["components"]["schemas"]
SEEDS = [folder / "shared" / "seeds" / "profiling_contracts.md" for folder in (ROOT, *ROOT.parents)]
SEED = next((path for path in SEEDS if path.is_file()), None)
ASKED: dict[str, Any] = {"model_path": "/models/m", "input_dir": "/data/images"}
FOUND: dict[str, Any] = {
    "run_id": "r",
    "mfu_model_level": 0.4,
    "notes": "decode is bound by memory",
}


def test_a_request_is_filled_with_what_the_seed_says() -> None:
    request = LLMProfileRequest(**ASKED)
    assert (request.repeats, request.use_flash_attn) == (3, True)
    assert (request.device, request.max_new_tokens) == ("cuda:0", 64)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"model_path": "models/m"}, "model_path is 'models/m'; it must be an absolute path"),
        ({"input_dir": "./images"}, "input_dir"),
        ({"repeats": 0}, "repeats is 0; it must be >= 1"),
        ({"repeats": True}, "repeats is True; a whole number is needed"),
        ({"repeats": 1.5}, "repeats"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"use_flash_attn": 1}, "use_flash_attn is 1; true or false is needed"),
        ({"device": 0}, "device"),
        ({"model_path": None}, "model_path"),
        ({"warmup": -1}, "warmup"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name_value_and_what_is_right(
    wrong: dict[str, Any], named: str
) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(named)):
        LLMProfileRequest(**{**ASKED, **wrong})


def test_a_whole_number_is_taken_where_a_number_is_meant_and_a_flag_is_not() -> None:
    stats = Stats(mean=3, std=0)
    assert (stats.mean, type(stats.mean)) == (3.0, float)
    summary = LLMProfileReportSummary(**{**FOUND, "mfu_model_level": 1, "mfu_per_stage": {"a": 1}})
    assert summary.mfu_per_stage == {"a": 1.0}
    for wrong in (True, "1", None):
        with pytest.raises(TypeError, match="mean"):
            Stats(mean=wrong, std=0.0)
    with pytest.raises(TypeError, match=re.escape("mfu_per_stage['a'] is True")):
        LLMProfileReportSummary(**{**FOUND, "mfu_per_stage": {"a": True}})


def test_what_is_not_a_number_is_no_figure() -> None:
    with pytest.raises(ValueError, match="finite"):
        Stats(mean=float("nan"), std=0.0)
    with pytest.raises(TypeError, match="finite"):
        LLMProfileReportSummary(**{**FOUND, "mfu_per_stage": {"decode": float("inf")}})


def test_an_unknown_peak_leaves_the_models_mfu_open() -> None:
    summary = LLMProfileReportSummary(run_id="r", mfu_model_level=None, notes="peak unknown")
    assert summary.mfu_per_stage == {}
    assert from_json(to_json(summary), LLMProfileReportSummary) == summary


def test_a_summary_comes_back_from_json_as_it_was() -> None:
    operator = OperatorSummary(op_name="aten::mm", total_time_ms=2, cuda_time_ms=0, calls=7)
    summary = LLMProfileReportSummary(
        **FOUND,
        top_operators=[operator],
        aggregates={"ttft_ms": Stats(mean=12.5, std=0.5, count=3)},
        mbu_per_stage={"decode": 0.41},
        uncounted=["aten::sort"],
    )
    status = ProfileStatus(run_id="r", state="done", artifacts_dir="/tmp/r", summary=summary)
    assert from_json(to_json(status), ProfileStatus) == status


def test_a_wrong_body_is_an_error_of_ours() -> None:
    with pytest.raises(LLMInvalidRequestError, match="absolute path"):
        from_json(b'{"model_path": "m", "input_dir": "/i"}', LLMProfileRequest)
    with pytest.raises(LLMInvalidRequestError, match="input_dir"):
        from_json(b'{"model_path": "/m"}', LLMProfileRequest)
    with pytest.raises(LLMInvalidRequestError, match="nearest: 'repeats'"):
        from_json(b'{"model_path": "/m", "input_dir": "/i", "repeat": 2}', LLMProfileRequest)


def test_an_accepted_run_waits_or_runs() -> None:
    LLMProfileAccepted(run_id="r", status="running", artifacts_dir="/tmp/r")
    with pytest.raises(ValueError, match="queued or running"):
        LLMProfileAccepted(run_id="r", status="done", artifacts_dir="/tmp/r")  # type: ignore[arg-type]


def test_contracts_do_not_change_once_they_are_made() -> None:
    with pytest.raises(exceptions.FrozenInstanceError):
        LLMProfileRequest(**ASKED).repeats = 5  # type: ignore[misc]


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda cls: cls.__name__)
def test_the_document_has_every_field_as_the_contract_has_it(contract: Any) -> None:
    schema = DOCUMENT[contract.__name__]
    own = fields(contract)
    assert list(schema["properties"]) == [f.name for f in own]
    assert schema.get("required", []) == [f.name for f in own if f.default is NOTHING]
    for f in own:
        described = schema["properties"][f.name]
        assert described["description"] == f.metadata["help"] != ""
        if f.default is NOTHING or isinstance(f.default, Factory):  # type: ignore[arg-type]
            assert "default" not in described
        else:
            assert described["default"] == f.default
        if "minimum" in f.metadata:
            assert described["minimum"] == f.metadata["minimum"]


@pytest.mark.skipif(SEED is None, reason="the seed of the contracts is not beside this checkout")
def test_every_field_of_the_seed_is_there_under_its_name_and_default() -> None:
    assert SEED is not None
    text = SEED.read_text()
    for cls, body in re.findall(r"^class (\w+):\n(.*?)(?=^@|^```)", text, re.M | re.S):
        contract = next(each for each in CONTRACTS if each.__name__ == cls)
        own = {f.name: f for f in fields(contract)}
        hints = get_type_hints(contract)
        named = re.findall(r"^    (\w+): ([^=\n]+?) = field\((.*)\)$", body, re.M)
        assert named
        # Additions come after, and are optional.
        assert list(own)[: len(named)] == [name for name, _, _ in named]
        assert all(f.default is not NOTHING for f in list(own.values())[len(named) :])
        for name, kind, settings in named:
            plain = re.search(r"default=([^,]+),", settings)
            found = own[name].default
            if plain:
                assert found == yaml.safe_load(plain[1].strip('"').replace("True", "true"))
            elif factory := re.search(r"factory=(\w+)", settings):
                assert isinstance(found, Factory)  # type: ignore[arg-type]
                assert found.factory.__name__ == factory[1]
            else:
                assert found is NOTHING
            wanted = eval(kind.replace("Dict", "dict"), vars(profiling))
            # The one widening: a device whose peak is unknown has no MFU.
            assert hints[name] == (wanted | None if name == "mfu_model_level" else wanted)
