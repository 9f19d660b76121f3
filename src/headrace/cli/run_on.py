"""Where ``headrace run`` has its work done: by this process, or by the workers of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.chains.graph import Chain
    from headrace.chains.running import Run, RunSettings

On: TypeAlias = Annotated[
    Literal["ray"] | None, typer.Option(help="Let the workers of a Ray cluster do it.")
]
Workers: TypeAlias = Annotated[
    int | None, typer.Option(min=1, help="So many at most with --on; a processor each.")
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(help="The cluster's; RAY_ADDRESS, or else a Ray of our own on this machine."),
]


def run_on(
    on: str | None,
    chain: Chain,
    settings: RunSettings,
    *,
    workers: int | None,
    ray_address: str | None,
) -> Run:
    """The run, here or on a cluster."""
    from headrace.chains.cluster.partitions import check_place
    from headrace.chains.running import Run

    check_place(settings.run_dir, on_cluster=on is not None)
    if on is not None:
        from headrace.chains.cluster.crew import Places
        from headrace.chains.cluster.running import ClusterRun

        return ClusterRun(chain, settings, Places(ray_address, workers))
    for name, given in (("workers", workers), ("ray_address", ray_address)):
        if given is not None:
            raise LLMInvalidRequestError(
                f"{name} is {given!r}, which is for a cluster; say --on ray too, or leave it out",
                param=name,
            )
    return Run(chain, settings)
