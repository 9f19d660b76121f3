"""Profiles to make reports of: a vision-language model on a GPU, and the least that a run can leave."""

from __future__ import annotations

import random

from attrs import evolve

from headrace.contracts.profile_report import (
    Environment,
    MemoryMoment,
    Noise,
    Overhead,
    Peak,
    Prediction,
    ProfileReport,
    Recommendation,
    StageFigures,
)
from headrace.contracts.profiling import (
    LLMProfileReportSummary,
    LLMProfileRequest,
    OperatorSummary,
    Stats,
)
from headrace.numbers.stats import mean, sample_std

HOSTILE = '<script>alert(1)</script> "quoted" \u202e & `code` | [link](http://x.example/)\n# head'
REQUEST = LLMProfileRequest(model_path="/models/eyes-3b", input_dir="/data/pages")


def stats(values: list[float]) -> Stats:
    middle = mean(values)
    assert middle is not None
    return Stats(
        mean=middle,
        std=sample_std(values) or 0.0,
        count=len(values),
        minimum=min(values),
        maximum=max(values),
    )


def stage(name: str, middle: float, *, seed: int = 1, **more: object) -> StageFigures:
    draw = random.Random(f"{name}{seed}")
    values = [middle * draw.gauss(1, 0.03) for _ in range(30)]
    return StageFigures(stage=name, time_ms=stats(values), values_ms=tuple(values), **more)  # type: ignore[arg-type]


def a_report(seed: int = 1, scale: float = 1.0, verdict: str = "clean") -> ProfileReport:
    stages = (
        stage("preprocess", 21.0 * scale, seed=seed, share=0.021),
        stage(
            "vision",
            62.0 * scale,
            seed=seed,
            share=0.062,
            inside="prefill",
            flops=12.1e12,
            bytes=21e9,
            intensity=576.0,
            floor_ms=59.0,
            bound="compute",
            mfu=0.197,
            mbu=0.01,
            of_floor=0.197,
        ),
        stage(
            "prefill",
            118.0 * scale,
            seed=seed,
            share=0.118,
            tokens=10240,
            flops=46.4e12,
            bytes=71e9,
            intensity=653.0,
            floor_ms=46.9,
            bound="compute",
            mfu=0.397,
            mbu=0.018,
            of_floor=0.397,
        ),
        stage(
            "decode",
            861.0 * scale,
            seed=seed,
            share=0.861,
            tokens=630,
            flops=3.9e12,
            bytes=3.96e12,
            intensity=0.98,
            floor_ms=1182.0,
            bound="memory",
            mfu=0.0046,
            mbu=0.137,
            of_floor=0.137,
        ),
    )
    operators = _with_shares(
        (
            _operator("aten::mm", "decode", 41.2, 20160, 3.6e12 / 10, 0.35e12, 0.31),
            _operator("aten::mm", "prefill", 52.0, 2520, 38e12 / 10, 6.1e9, 0.61),
            _operator(
                "flash_attn::_flash_attention_forward", "prefill", 8.1, 360, 3.1e11, 1.2e9, 0.38
            ),
            _operator(
                "aten::scaled_dot_product_attention", "decode", 9.4, 2268, 2.1e10, 1.4e10, 0.44
            ),
            _operator("aten::native_layer_norm", "vision", 3.0, 480, None, 9e8, 0.12),
            _operator("aten::copy_", None, 6.6, 9000, 0.0, 4.0e9, None),
            _operator("aten::gelu", "vision", 2.2, 240, 6e8, 1.1e9, 0.2),
            _operator("aten::rsqrt", "decode", 1.9, 4100, None, None, None),
        )
    )
    moments = []
    for n in range(120):
        at = n * 25.0
        name = "prefill" if n % 40 < 6 else "decode"
        moments.append(
            MemoryMoment(
                at_ms=at,
                allocated=int(6.4e9 + (n % 40) * 2.1e7 + (3e8 if n % 40 < 6 else 0)),
                stage=name,
            )  # type: ignore[arg-type]
        )
    ttft = stats([161.0 * scale, 158.5 * scale, 164.2 * scale])
    tpot = stats([13.7 * scale, 13.6 * scale, 13.9 * scale])
    sentence = (
        "Decode reaches 14% of memory bandwidth and 0.5% of compute: batch more, or quantise."
    )
    return ProfileReport(
        run_id=f"20261128-2104{seed:02}-3f9a2c",
        started="2026-11-28T21:04:55Z",
        request=REQUEST,
        summary=LLMProfileReportSummary(
            run_id=f"20261128-2104{seed:02}-3f9a2c",
            mfu_model_level=0.0497,
            mfu_per_stage={"prefill": 0.397, "decode": 0.0046},
            top_operators=list(operators[:5]),
            aggregates={
                "ttft_ms": ttft,
                "tpot_ms": tpot,
                "prefill_tokens_per_s": stats([8677.0, 8591.5, 8701.0]),
                "decode_tokens_per_s": stats([72.9 / scale, 73.5 / scale, 71.9 / scale]),
            },
            notes=f"{sentence} Prefill reaches 40% of compute.",
            mbu_model_level=0.12,
        ),
        verdict=sentence,
        environment=Environment(
            device="cuda:0",
            device_name="NVIDIA H100 80GB HBM3",
            facts={"torch": "2.9.1+cu129", "driver": "575.57", "system": "Linux 6.8"},
        ),
        noise=Noise(
            verdict=verdict,  # type: ignore[arg-type]
            text="repeats lie within 1.9% of one another, and the process got the cores it asked for",
            cpu_share=0.993,
            variation=0.019,
            stolen_share=0.0,
        ),
        version="0.1.0",
        model_name="eyes-3b",
        parameters=3_090_000_000,
        weight_bytes=6_180_000_000,
        kv_bytes_per_token=36864.0,
        dtype="bf16",
        attention="flash_attention_2",
        inputs=tuple(f"page-{n:02}.png" for n in range(10)),
        repeats=3,
        ttft_ms=ttft,
        tpot_ms=tpot,
        total_ms=stats([1010.0 * scale, 998.0 * scale, 1013.0 * scale]),
        stages=stages,
        operators=operators,
        memory=tuple(moments),
        peak_memory=7_700_000_000,
        peaks=(
            Peak(
                source="datasheet",
                dtype="bf16",
                flops_per_s=989.4e12,
                bytes_per_s=3.35e12,
                text="H100 SXM: NVIDIA H100 datasheet, looked up 2026-11-28",
            ),
            Peak(
                source="measured",
                dtype="bf16",
                flops_per_s=742e12,
                bytes_per_s=2.89e12,
                spread=0.011,
                cpu_share=1.0,
                text="the best of 5 matrix products and of as many copies, by torch",
            ),
            Peak(source="measured", dtype="fp32", flops_per_s=51.0e12),
        ),
        overhead=Overhead(prefill=1.31, decode=1.84),
        recommendations=(
            Recommendation(
                text="Decode several sequences together: weights are read once for all.",
                because="decode does 1.0 FLOPs a byte, and the device's ridge is at 295.",
                gain=12.4,
            ),
            Recommendation(
                text="Preprocess images in workers.", because="preprocess takes 2.1% of the time."
            ),
        ),
        predictions=(
            Prediction(
                input="page-00.png",
                text="# Invoice\n\nNumber 1147\nTotal 12.00",
                input_tokens=1024,
                output_tokens=63,
                finish_reason="stop",
            ),
            Prediction(
                input="page-01.png",
                text="A chart of rainfall.",
                input_tokens=1024,
                output_tokens=64,
                finish_reason="length",
            ),
        ),
        uncounted=("aten::rsqrt", "aten::silu"),
        conventions=("One multiply-add is two FLOPs.", "Attention is counted as causal."),
        notes=("The first pass took 2.1 s and is not in any figure.",),
    )


def _operator(
    name: str,
    stage: str | None,
    ms: float,
    calls: int,
    flops: float | None,
    moved: float | None,
    share: float | None,
) -> OperatorSummary:
    return OperatorSummary(
        op_name=name,
        total_time_ms=ms * 0.2,
        cuda_time_ms=ms,
        calls=calls,
        stage=stage,
        flops=flops,
        bytes=moved,
        share_of_roof=share,
    )


def _with_shares(operators: tuple[OperatorSummary, ...]) -> tuple[OperatorSummary, ...]:
    whole: dict[str | None, float] = {}
    for o in operators:
        whole[o.stage] = whole.get(o.stage, 0.0) + o.cuda_time_ms
    return tuple(evolve(o, share_of_stage=o.cuda_time_ms / whole[o.stage]) for o in operators)


def a_bare_report() -> ProfileReport:
    """A run that was stopped before a single stage was timed."""
    return ProfileReport(
        run_id="bare",
        started="2026-11-28T21:04:55Z",
        request=LLMProfileRequest(model_path="/m", input_dir="/d", device="cpu"),
        summary=LLMProfileReportSummary(
            run_id="bare", mfu_model_level=None, notes="stopped while loading", complete=False
        ),
        verdict="The run was stopped before anything was timed.",
        environment=Environment(device="cpu", device_name=None),
        noise=Noise(verdict="unknown", text="nothing was timed"),
        complete=False,
    )
