"""What all checks in a real browser share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from page.browser import browsing, find_chromium


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    with browsing(program, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures():
    folder = Path(os.environ.get("HEADRACE_SCREENSHOTS", "build/page"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
