"""Ray, for load tests: joining a cluster or starting one, and putting an actor on each host."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from attrs import frozen

from headrace.bench.load.host import Host
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_CONNECTED_WITHIN_S = 5.0
_PLACED_WITHIN_S = 60.0
_OWN_STORE_BYTES = 80 * 2**20  # little more than the least that Ray takes; nothing large goes there
_CALLS_AT_ONCE = 4  # one waits for news, others tell

MISSING = "load tests from several hosts go through Ray: pip install 'headrace[ray]', on each host"


@frozen
class Placed:
    """An actor, the node that it is on, and how messages name that."""

    actor: Any
    node: str
    name: str


@contextmanager
def joined(address: str | None, processors: int) -> Iterator[Any]:
    """Ray, connected to ``address``, else to ``RAY_ADDRESS``; else one of our own, which ends with us."""
    # Ray tells its makers of its use unless it is told not to, before it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of a change
    try:
        import ray
    except ImportError as error:
        raise LLMInvalidRequestError(MISSING, param="hosts") from error
    logging.getLogger("ray").setLevel(logging.ERROR)  # the rest is about Ray, not about the load
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address != "local":
        _require_somebody(address)
    own: dict[str, Any] = {
        "num_cpus": processors,
        "include_dashboard": False,
        "object_store_memory": _OWN_STORE_BYTES,
    }
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
    # It prints that processes of its own died, at any time, where our report goes.
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


async def place(
    ray: Any, hosts: int, each: int, stopped: Callable[[], bool]
) -> list[Placed] | None:
    """``each`` actors on so many hosts, a node a host while there are as many; None if ``stopped``.

    Each keeps a processor of the cluster for itself.
    """
    from ray.util import placement_group, placement_group_table
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    have = int(ray.cluster_resources().get("CPU", 0))
    if have < hosts * each:
        raise LLMInvalidRequestError(
            f"--hosts is {hosts}{f' with --workers {each}' if each > 1 else ''}, and the Ray cluster "
            f"has {have} processors, of which each sender takes one; lower --hosts, or add nodes",
            param="hosts",
        )
    group = placement_group([{"CPU": each}] * hosts, strategy="SPREAD")
    for _ in range(round(_PLACED_WITHIN_S / 0.2)):
        if stopped():
            return None
        if await asyncio.to_thread(group.wait, 0.2):
            break
    else:
        raise LLMUnavailableError(
            f"the Ray cluster had no {hosts} times {each} processors free within "
            f"{_PLACED_WITHIN_S:g} s; look at `ray status`, or lower --hosts"
        )
    node_of = placement_group_table(group)["bundles_to_node_id"]
    names = {
        node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
        for node in ray.nodes()
    }
    # A host whose sender dies has lost what it measured, so there is nothing to restart.
    remote = ray.remote(num_cpus=1, max_restarts=0, max_concurrency=_CALLS_AT_ONCE)(Host)
    placed = []
    for at in range(hosts * each):
        where = PlacementGroupSchedulingStrategy(
            placement_group=group, placement_group_bundle_index=at // each
        )
        node = node_of[at // each]
        actor = remote.options(scheduling_strategy=where).remote()
        placed.append(Placed(actor, node, names.get(node, node)))
    return placed
