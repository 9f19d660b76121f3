"""Ray: joining a cluster, or starting one on this machine that ends with us."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_CONNECTED_WITHIN_S = 5.0
_OWN_STORE_BYTES = 80 * 2**20  # little more than the least that Ray takes; nothing large goes there


@contextmanager
def joined(address: str | None, processors: int, *, param: str, missing: str) -> Iterator[Any]:
    """Ray, connected to ``address``, else to ``RAY_ADDRESS``; else one of our own, which ends with us.

    The thread that enters it must live until it is left, for Ray's processes end with that. Raises
    LLMInvalidRequestError that says ``missing`` of ``param`` where Ray is not installed.
    """
    # Ray tells its makers of its use unless it is told not to, before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change
    try:
        import ray
    except ImportError as error:
        raise LLMInvalidRequestError(missing, param=param) from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # the rest is about Ray, not about us
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _require_somebody(address)
    own: dict[str, Any] = {
        "num_cpus": processors,
        "include_dashboard": False,
        "object_store_memory": _OWN_STORE_BYTES,
    }
    if address == "local":
        # Else its workers have the least but four of priorities, and starve where others work too.
        os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        ray.init(
            address=address,
            configure_logging=False,
            log_to_driver=False,
            **(own if address == "local" else {}),
        )
    except (RuntimeError, ValueError, OSError) as error:
        if address == "local":
            raise LLMUnavailableError(f"Ray does not start on this machine: {error}") from error
        raise _nobody(address, error) from error
    # It prints that processes of its own died, at any time, where what we print goes.
    with redirect_stdout(sys.stderr):
        try:
            yield ray
        finally:
            ray.shutdown()


def _require_somebody(address: str) -> None:
    """Ray itself waits for a minute where nobody answers, and then says much."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return  # a name such as "auto", which Ray looks up on this machine
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTED_WITHIN_S).close()
    except (OSError, OverflowError) as error:
        raise _nobody(address, error) from error


def _nobody(address: str, why: Exception) -> LLMUnavailableError:
    return LLMUnavailableError(
        f"--ray-address is {address!r}, and no Ray cluster can be joined there ({why}); right would "
        "be what `ray start` said, as 10.0.0.1:6379, on a machine of the cluster"
    )
