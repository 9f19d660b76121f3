"""How full the engines are that we start: told while they run, and nothing is started to find out."""

from __future__ import annotations

import asyncio

from backends.managed.engines import answer, managed, no_process_left, stand_in
from backends.managed.programs import engine, install
from headrace.backends.managed.adapters.programs import MAX
from headrace.contracts.engines import EngineConfig


def test_llama_server_tells_what_it_did_while_it_runs(box_model, tmp_path):
    config = EngineConfig(
        name="real",
        model=str(box_model.path),
        backend="llama-server",
        extra_serve_flags=("--parallel", "2", "--ctx-size", "2048"),
        startup_timeout_s=120.0,
    )

    async def play():
        async with managed(config, tmp_path / "state") as started:
            assert started.tells_metrics
            assert await started.metrics() == ()
            assert started.snapshot().state == "stopped"
            await answer(started)
            # Its last token may be told before the request is over.
            while (told := (await started.metrics())[0]).running:
                await asyncio.sleep(0.05)
            assert (told.engine, told.queued) == ("llama-server", 0)
            assert told.prompt_tokens > 0
            assert told.completion_tokens > 0
            await started.stop()
            assert await started.metrics() == ()

    asyncio.run(asyncio.wait_for(play(), 150))
    assert no_process_left(tmp_path)


def test_a_program_of_which_nobody_knows_where_it_tells_is_not_asked(tmp_path):
    async def play():
        async with managed(stand_in(), tmp_path / "state") as started:
            assert not started.tells_metrics

    asyncio.run(play())


def test_two_engines_of_max_tell_on_ports_of_their_own(tmp_path):
    bin_ = install(tmp_path / "bin")
    launches = [MAX.launch(engine(MAX, bin_), "127.0.0.1", port) for port in (7001, 7002)]
    ports = {each.env["MAX_SERVE_METRICS_ENDPOINT_PORT"] for each in launches}
    assert len(ports) == 2
    assert {each.metrics_url for each in launches} == {
        f"http://127.0.0.1:{port}/metrics" for port in ports
    }
    own = {"MAX_SERVE_METRICS_ENDPOINT_PORT": "9099"}
    told = MAX.launch(engine(MAX, bin_, extra_env=own), "127.0.0.1", 7001)
    assert told.metrics_url == "http://127.0.0.1:9099/metrics"
