"""The gateways that are measured beside one another: how each is started, a row each."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version as installed
from pathlib import Path

import yaml
from attrs import field, frozen

KEY = "sk-benchmark-0123456789abcdef"
"""What callers show; the gateways that check keys know no other."""


@frozen(kw_only=True)
class Place:
    """Where a peer runs: a folder of its own, its port, the mock's port, its interpreter."""

    folder: Path
    port: int
    upstream: int
    python: str

    def write(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)


@frozen(kw_only=True)
class Peer:
    """A row: what it is started with, and what keeps it from being started here."""

    name: str
    command: Callable[[Place], list[str]]
    version: Callable[[str], str]
    option: str | None = field(default=None)
    """The command-line option that names an interpreter which has it."""
    get: str = field(default="")
    environment: Mapping[str, str] = field(factory=dict)

    def missing(self, python: str | None) -> str | None:
        """Why it cannot be measured here, and how to change that."""
        if self.option is not None and python is None:
            return f"left out, no interpreter named that has it ({self.option} PYTHON; {self.get})"
        if self.option is None and self.get and shutil.which(self.name) is None:
            return f"left out, not on the PATH ({self.get})"
        return None


def _headrace(place: Place) -> list[str]:
    config = {
        "server": {"port": place.port, "api_keys": [KEY]},
        "engine": {"enabled": False},
        "embeddings": {"enabled": False},
        "backends": [
            {
                "name": "m",
                "provider": "vllm",
                "base_url": f"http://127.0.0.1:{place.upstream}/v1",
                "api_key": "upstream",
                "max_concurrent_requests": 1024,
                "max_retries": 2,
                "breaker_failures": 5,
            }
        ],
        "records": {"file": str(place.folder / "records.jsonl")},
        "logging": {"requests": False},
    }
    path = place.write("gateway.yaml", yaml.safe_dump(config))
    start = "from headrace.cli.main import main; main()"
    return [place.python, "-c", start, "serve", path]


def _nginx(place: Place) -> list[str]:
    folder = place.folder
    user = "user root;" if os.geteuid() == 0 else ""
    text = f"""
daemon off; worker_processes 1; worker_rlimit_nofile 16384; {user}
pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream up {{
    server 127.0.0.1:{place.upstream}; keepalive 1024; keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{place.port} backlog=4096;
    location / {{
      proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    return ["nginx", "-p", str(folder), "-c", place.write("nginx.conf", text)]


def _litellm(place: Place) -> list[str]:
    params = {
        "model": "openai/m",
        "api_base": f"http://127.0.0.1:{place.upstream}/v1",
        "api_key": "upstream",
    }
    config = {
        "model_list": [{"model_name": "m", "litellm_params": params}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 2},
    }
    path = place.write("litellm.yaml", yaml.safe_dump(config))
    program = str(Path(place.python).parent / "litellm")
    where = ["--host", "127.0.0.1", "--port", str(place.port)]
    more = ["--num_workers", "1", "--telemetry", "False", "--keepalive_timeout", "600"]
    return [program, "--config", path, *where, *more]


def _vllm_router(place: Place) -> list[str]:
    program = str(Path(place.python).parent / "vllm-router")
    command = [program, "--host", "127.0.0.1", "--port", str(place.port)]
    command += ["--worker-urls", f"http://127.0.0.1:{place.upstream}"]
    command += ["--policy", "round_robin", "--log-level", "error"]
    command += ["--max-concurrent-requests", "4096", "--prometheus-port", str(place.port + 1)]
    return command


def _nginx_version(_: str) -> str:
    told = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
    return told.stderr.strip().rpartition("/")[2]


def _package(name: str) -> Callable[[str], str]:
    def version(python: str) -> str:
        ask = f"from importlib.metadata import version; print(version({name!r}))"
        told = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
        return told.stdout.strip()

    return version


PEERS = (
    Peer(name="headrace", command=_headrace, version=lambda python: installed("headrace")),
    Peer(
        name="nginx",
        command=_nginx,
        version=_nginx_version,
        get="Debian: apt-get install nginx",
    ),
    Peer(
        name="litellm",
        command=_litellm,
        version=_package("litellm"),
        option="--litellm",
        get="pip install 'litellm[proxy]'",
        # Its table of prices from the package, not from the Internet; the rest as it advises.
        environment={
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
        },
    ),
    Peer(
        name="vllm-router",
        command=_vllm_router,
        version=_package("vllm-router"),
        option="--vllm-router",
        get="pip install vllm-router",
    ),
)


def python_of(peer: Peer, given: Mapping[str, str | None]) -> str:
    """The interpreter of that peer's environment."""
    return given.get(peer.name) or sys.executable
