"""``headrace_mock`` as users have it in their own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import openai
import pytest

from headrace import Client, EndpointSettings, LLMOverloadedError, RetryPolicy
from headrace.contracts.errors import LLMInvalidRequestError

from .asking import ask, connect, get, post

THEIRS = """
import json, sys
from urllib.request import Request, urlopen

def test_theirs(headrace_mock):
    mock = headrace_mock(tokens=3)
    body = json.dumps({"model": "m", "messages": []}).encode()
    with urlopen(Request(mock.url + "/v1/chat/completions", body)) as reply:
        assert json.load(reply)["choices"][0]["message"]["content"] == "the water runs"
    assert mock.requests[0].json["model"] == "m"
"""


def run_pytest(tmp_path, *words, text=THEIRS, **variables):
    (tmp_path / "test_theirs.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *words, str(tmp_path / "test_theirs.py")],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, **variables},
        check=False,
    )


def test_a_users_test_has_it_by_naming_the_plugin(tmp_path):
    done = run_pytest(tmp_path, "-p", "headrace.testing")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_users_test_has_it_where_headrace_is_installed(tmp_path):
    # What pyproject.toml says, as an installer writes it.
    info = tmp_path / "installed" / "somebody-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[pytest11]\nheadrace.testing = headrace.testing\n")
    path = os.pathsep.join([str(info.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = run_pytest(tmp_path, "-p", "headrace.testing", PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    done = run_pytest(tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_documents_example_passes(tmp_path):
    page = Path(__file__).parents[3] / "docs" / "how-to" / "test-your-code.md"
    (text,) = re.findall(r"^```py\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    done = run_pytest(tmp_path, "-p", "headrace.testing", text=text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_plugin_loads_nothing_heavy_before_it_is_used(tmp_path):
    text = (
        "import sys\n"
        "def test_light():\n"
        "    heavy = {'uvloop', 'httptools', 'msgspec', 'cattrs', 'asyncio', 'attr'}\n"
        "    ours = {n for n in sys.modules if n.startswith('headrace.')}\n"
        "    assert ours == {'headrace.testing'}\n"
        "    assert not heavy & set(sys.modules) - {'asyncio', 'attr'}\n"
    )
    done = run_pytest(tmp_path, "-p", "headrace.testing", text=text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_server_is_had_without_pytest():
    text = (
        "import sys; sys.modules['pytest'] = None\n"
        "from headrace.testing import mock_server\n"
        "with mock_server() as mock: print(mock.url)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("http://127.0.0.1:")


def test_it_shows_the_requests_that_came(headrace_mock):
    mock = headrace_mock()
    with openai.OpenAI(base_url=f"{mock.url}/v1", api_key="secret") as client:
        client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], temperature=0.5
        )
    get(mock.url, "/health")
    (seen,) = mock.requests
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.json["temperature"] == 0.5
    assert seen.headers["authorization"] == "Bearer secret"


def test_it_may_be_told_anew_while_it_runs(headrace_mock):
    mock = headrace_mock(tokens=2)
    assert post(mock.url)["usage"]["completion_tokens"] == 2
    mock.set(tokens=5)
    assert post(mock.url)["usage"]["completion_tokens"] == 5
    mock.set(faults=["error,status=503"])
    assert ask(mock.url)[0].startswith(b"HTTP/1.1 503 ")
    mock.set(faults=[])
    assert post(mock.url)["usage"]["completion_tokens"] == 5


def test_a_wrong_setting_is_told_with_its_name(headrace_mock):
    with pytest.raises(LLMInvalidRequestError, match=r"nearest: 'ttft'"):
        headrace_mock(tfft="50ms")
    mock = headrace_mock()
    with pytest.raises(LLMInvalidRequestError, match=r"\$\.itl"):
        mock.set(itl="soon")
    with pytest.raises(LLMInvalidRequestError, match="freeze holds from the start"):
        mock.set(freeze=None)


def test_several_are_apart_and_one_that_has_ended_refuses(headrace_mock):
    one, two = headrace_mock(tokens=1), headrace_mock(tokens=2)
    assert post(one.url)["usage"]["completion_tokens"] == 1
    assert post(two.url)["usage"]["completion_tokens"] == 2
    assert len(one.requests) == len(two.requests) == 1
    one.stop()
    one.stop()
    with pytest.raises(ConnectionRefusedError):
        connect(one.url)
    assert post(two.url)["usage"]["completion_tokens"] == 2


def test_our_own_client_sees_the_faults(headrace_mock):
    mock = headrace_mock(faults=["error,status=503"], tokens=3)
    once = EndpointSettings(retry=RetryPolicy(retries=0))
    with Client("m", base_url=f"{mock.url}/v1", endpoint=once) as client:
        with pytest.raises(LLMOverloadedError):
            client.chat("hi")
        mock.set(faults=())
        assert client.chat("hi").text == "the water runs"
