"""``headrace serve`` as a command: what it prints, and how it refuses."""

from __future__ import annotations

import socket

from gateway.served import MODEL, Served, run_headrace


def only_line(text):
    lines = text.strip().splitlines()
    assert len(lines) == 1, text
    return lines[0]


def test_a_taken_port_is_said_in_one_line_before_anything_is_loaded(empty_cache):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_headrace("serve", "--port", str(port), HEADRACE_CACHE=str(empty_cache))
    assert done.returncode == 1
    said = only_line(done.stderr)
    assert f"127.0.0.1:{port}" in said
    assert "--port" in said
    assert list(empty_cache.iterdir()) == []


def test_an_address_that_is_not_ours_is_said_in_one_line():
    done = run_headrace("serve", "--host", "192.0.2.1", HEADRACE_API_KEYS="k")
    assert done.returncode == 1
    assert "192.0.2.1" in only_line(done.stderr)


def test_port_zero_takes_a_free_port_and_tells_it(gateway):
    assert gateway.port > 0
    assert f"http://127.0.0.1:{gateway.port}/v1/chat/completions" in gateway.log
    assert f"headrace serves {MODEL}" in gateway.log
    assert gateway.get("/health").status == 200


def test_an_unknown_model_is_said_in_one_line():
    done = run_headrace("serve", "--port", "0", "--model", "no-such-model")
    assert done.returncode == 1
    said = only_line(done.stderr)
    assert "no-such-model" in said
    assert MODEL in said


def test_a_configuration_that_is_not_there_is_said_in_one_line(tmp_path):
    done = run_headrace("serve", str(tmp_path / "nowhere.yaml"))
    assert done.returncode == 1
    assert "nowhere.yaml" in only_line(done.stderr)


def test_nothing_to_serve_is_said_in_one_line():
    nothing = {"HEADRACE_ENGINE__ENABLED": "false", "HEADRACE_EMBEDDINGS__ENABLED": "false"}
    done = run_headrace("serve", "--port", "0", **nothing)
    assert done.returncode == 1
    assert "nothing to serve" in only_line(done.stderr)


def test_the_port_of_the_environment_is_taken(box_model, tmp_path):
    # The tests' own --port 0 goes before it, as the command line does before all.
    served = Served(tmp_path, {"engine": {"kv_tokens": 512}}, HEADRACE_PORT="1")
    try:
        assert served.port != 1
    finally:
        served.stop()


def test_the_version_is_printed():
    done = run_headrace("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("headrace 0.")
