"""What all tests share: the model in the box, and real gateways that serve it.

``HEADRACE_CACHE`` names the model cache, else it is the user's own. ``HEADRACE_OFFLINE_TESTS=1``
skips what needs the model where that would have to be fetched first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backends.two_engines import TwoEngines
from gateway.served import Served
from headrace.backends.local.openvino import is_installed
from headrace.stores.models import BOX, EMBEDDER, ModelFile, ModelStore

OFFLINE = "HEADRACE_OFFLINE_TESTS"

# How long an example takes says more about the machine than about us.
settings.register_profile("headrace", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("headrace")


_LONG = (
    "test_documents.py",
    "test_frozen_server.py",
    "test_load_find.py",
    "test_selftest.py",
    "test_starved_sender.py",
    "test_workers.py",
)


def pytest_configure() -> None:
    """Commands are run as in a pipe: pytest-xdist tells its workers how wide its own terminal is."""
    os.environ.pop("COLUMNS", None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever asks for the model is marked, so that ``-m 'not real_model'`` leaves all of it out."""
    for item in items:
        if {"box_model", "embedding_model", "engines"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real_model)
    # Files of few and long tests go first, so that no process has one of them left at the end.
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def box_model() -> ModelFile:
    """The model in the box, fetched into the cache if it is not there yet."""
    return _fetched(BOX.name)


@pytest.fixture(scope="session")
def embedding_model() -> ModelFile:
    """The embedding model in the box, fetched into the cache if it is not there yet."""
    return _fetched(EMBEDDER.name)


def _fetched(model: str) -> ModelFile:
    store = ModelStore()
    if os.environ.get(OFFLINE) == "1" and not store.is_here(model):
        pytest.skip(f"{OFFLINE}=1 and {model} is not in {store.cache}")
    return store.find(model)


@pytest.fixture(scope="session")
def gateway(box_model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """``headrace serve`` as it is without any configuration, shared by all tests."""
    served = Served(tmp_path_factory.mktemp("gateway"))
    try:
        served.wait_until_ready()
        yield served
    finally:
        served.stop()


@pytest.fixture
def empty_cache(tmp_path: Path) -> Path:
    """A cache folder with nothing in it."""
    folder = tmp_path / "cache"
    folder.mkdir()
    return folder


@pytest.fixture(scope="session")
def engines(box_model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoEngines]:
    """llama.cpp and OpenVINO with the model in the box in F16, where both say the same."""
    if not is_installed():
        pytest.skip("there are no wheels of OpenVINO for this machine")
    path = tmp_path_factory.mktemp("f16") / "box.F16.gguf"
    program = [sys.executable, "-m", "headrace.stores.models.requantise"]
    rewrite = [*program, str(box_model.path), str(path), "Q8_0", "F16"]
    subprocess.run(rewrite, check=True, stdout=subprocess.DEVNULL)
    both = TwoEngines(path)
    try:
        both.start()
        yield both
    finally:
        both.stop()
