"""What is kept and shown of what an engine's program says."""

from __future__ import annotations

import subprocess
import sys

from backends.managed.engines import until
from headrace.backends.managed.logs import shorten, tail, without_secrets

APPENDING = """
import sys, time
for i in range(10_000):
    print("line", i, flush=True)
    time.sleep(0.001)
"""


def test_the_end_of_a_log_is_its_last_lines_without_keys(tmp_path):
    path = tmp_path / "log"
    path.write_text("\n".join(f"line {i}" for i in range(100)) + "\nkey is topsecret\n\n")
    assert tail(path, ["topsecret"], lines=2) == "line 99\nkey is ***"
    assert tail(tmp_path / "none") == ""


def test_a_long_log_is_shortened_while_its_program_goes_on_writing(tmp_path):
    path = tmp_path / "log"
    with path.open("ab") as out:
        program = subprocess.Popen([sys.executable, "-S", "-c", APPENDING], stdout=out)
    try:
        until(lambda: path.stat().st_size > 2000)
        shorten(path, 2000, 100)
        assert path.stat().st_size < 1000
        until(lambda: path.stat().st_size > 3000)
    finally:
        program.kill()
        program.wait()
    assert b"\0" not in path.read_bytes()
    assert not path.read_text().startswith("line 0\n")


def test_a_short_log_is_left_as_it_is(tmp_path):
    path = tmp_path / "log"
    path.write_text("all of it")
    shorten(path, 2000, 100)
    assert path.read_text() == "all of it"
    shorten(tmp_path / "none")


def test_a_command_line_is_shown_without_what_its_flags_call_secret():
    argv = ("serve", "--api-key", "abc", "--hf-token=def", "--tokenizer", "t", "--max-tokens", "5")
    shown = ("serve", "--api-key", "***", "--hf-token=***", "--tokenizer", "t", "--max-tokens", "5")
    assert without_secrets(argv, ()) == shown
    assert (
        without_secrets(("x", "--url=http://h/?q=s3cret"), ["s3cret"])[1] == "--url=http://h/?q=***"
    )
