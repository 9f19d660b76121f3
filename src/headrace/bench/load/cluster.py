"""Ray, for load tests: an actor on each host."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from attrs import frozen

from headrace.bench.load.host import Host
from headrace.contracts.errors import LLMInvalidRequestError, LLMUnavailableError

_PLACED_WITHIN_S = 60.0
_CALLS_AT_ONCE = 4  # one waits for news, others tell

MISSING = "load tests from several hosts go through Ray: pip install 'headrace[ray]', on each host"


@frozen
class Placed:
    """An actor, the node that it is on, and how messages name that."""

    actor: Any
    node: str
    name: str


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
