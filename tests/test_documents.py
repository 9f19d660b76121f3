"""The examples in the documents run, against a real gateway, as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.served import Served
from headrace.backends.managed.opening import check_engine
from headrace.contracts.engine_entries import read_engines
from headrace.gateway.engines_config import EngineEntry
from headrace.stores.models import EMBEDDER

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Blocks that set up or serve are what the tests themselves did; the rest must run as it stands.
NOT_RUN = re.compile(r"^\s*make ", re.MULTILINE)
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENGINES = re.compile(r"^```yaml\n(engines:\n.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")


def examples() -> list[tuple[str, str, str]]:
    found = []
    for page in PAGES:
        for number, (language, text) in enumerate(BLOCK.findall(page.read_text())):
            if not NOT_RUN.search(text):
                found.append((f"{page.name}-{number}", language, text))
    return found


@pytest.mark.parametrize(
    ("language", "text"),
    [pytest.param(language, text, id=name) for name, language, text in examples()],
)
def test_an_example_runs_as_it_stands(
    request: pytest.FixtureRequest, gateway: Served, tmp_path: Path, language: str, text: str
) -> None:
    if EMBEDDER.name in text:
        request.getfixturevalue("embedding_model")
    text = text.replace("http://127.0.0.1:8000", gateway.url)
    command = [sys.executable, "-c", text] if language == "python" else ["bash", "-euc", text]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        check=False,
        # Where ``headrace`` itself is, as in an environment that a reader has activated.
        env={
            **os.environ,
            "HEADRACE_STATE": str(tmp_path / "state"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
    )
    # A machine that is too busy to measure on is told so, as the document says.
    if done.returncode == 4 and "headrace load" in text:
        assert "INVALID" in done.stdout
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_readmes_question_is_answered_with_paris(gateway: Served) -> None:
    (text,) = [t for _, language, t in examples() if language == "sh" and "capital" in t][:1]
    done = subprocess.run(
        ["bash", "-euc", text.replace("http://127.0.0.1:8000", gateway.url)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "Paris" in done.stdout


@pytest.mark.parametrize(
    "text",
    [text for page in PAGES for text in ENGINES.findall(page.read_text())],
)
def test_the_engines_of_the_documents_can_be_read(text: str) -> None:
    for engine in read_engines(text, "a page", EngineEntry):
        check_engine(engine)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
