"""What nsys and ncu watch: ``python -m headrace.bench.profile.nsight_pass REQUEST INPUT STAGE...``.

The profilers record while one of the stages runs, and neither loading nor warming up.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headrace.bench.profile import needs
from headrace.bench.profile.inputs import find_inputs
from headrace.bench.profile.loading import load
from headrace.bench.profile.passes import Runner
from headrace.bench.profile.preparing import prepare
from headrace.contracts.convert import from_json
from headrace.contracts.profiling import LLMProfileRequest

STEPS = 4


def main(request: LLMProfileRequest, name: str, stages: frozenset[str]) -> None:
    """One prefill and a few steps of the input ``name``, recorded where ``stages`` have them."""
    torch = needs.torch()
    loaded = load(request)
    given = next(
        each
        for each in find_inputs(Path(request.input_dir), sees=loaded.sees, model=loaded.name)
        if each.name == name
    )
    runner = Runner(loaded)
    runner.once(given, STEPS + 1)
    # Without CUDA there is no profiler to tell; the pass itself is the same.
    start = torch.cuda.profiler.start if loaded.on_cuda else lambda: None
    stop = torch.cuda.profiler.stop if loaded.on_cuda else lambda: None
    with torch.inference_mode():
        inputs = prepare(loaded, given)
        runner.finish()
        if "prefill" in stages:
            start()
        with runner.running("prefill"):
            token, cache = runner.prefill(inputs)
            runner.finish()
        if "prefill" not in stages:
            start()
        with runner.running("decode"):
            for _ in range(STEPS):
                token, cache = runner.step(token, cache)
                runner.finish()
        stop()
    runner.close()


if __name__ == "__main__":
    _, asked, chosen, *recorded = sys.argv
    main(from_json(Path(asked).read_bytes(), LLMProfileRequest), chosen, frozenset(recorded))
