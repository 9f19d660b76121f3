"""How near to a device's limits a pass runs: the roofline model.

FLOPs and bytes are those of the pass, peaks those of the device in the same dtype. ``None`` comes
out wherever a peak, a time or a count is missing.
"""

from __future__ import annotations

from typing import Literal

from attrs import frozen


@frozen(kw_only=True)
class Roof:
    """A device's limits: ``flops_per_s`` in the dtype that is used, ``bytes_per_s`` of its memory."""

    flops_per_s: float | None = None
    bytes_per_s: float | None = None


@frozen(kw_only=True)
class Floor:
    """The least time of a pass, in seconds, and what it is bound by."""

    seconds: float
    bound: Literal["compute", "memory"]


def compute_time(flops: float | None, roof: Roof) -> float | None:
    """Seconds that the arithmetic takes at least: flops / peak."""
    return _over(flops, roof.flops_per_s)


def memory_time(moved: float | None, roof: Roof) -> float | None:
    """Seconds that moving ``moved`` bytes takes at least: bytes / bandwidth."""
    return _over(moved, roof.bytes_per_s)


def floor(flops: float | None, moved: float | None, roof: Roof) -> Floor | None:
    """The least time: max(flops / peak, bytes / bandwidth), as if both overlapped wholly."""
    arithmetic, traffic = compute_time(flops, roof), memory_time(moved, roof)
    if arithmetic is None or traffic is None:
        return None
    if arithmetic >= traffic:
        return Floor(seconds=arithmetic, bound="compute")
    return Floor(seconds=traffic, bound="memory")


def mfu(flops: float | None, seconds: float | None, roof: Roof) -> float | None:
    """Model FLOPs utilisation: flops / (seconds x peak), a share of one."""
    return _over(compute_time(flops, roof), seconds)


def mbu(moved: float | None, seconds: float | None, roof: Roof) -> float | None:
    """Model bandwidth utilisation: bytes / (seconds x bandwidth), a share of one."""
    return _over(memory_time(moved, roof), seconds)


def intensity(flops: float | None, moved: float | None) -> float | None:
    """Arithmetic intensity, in FLOPs a byte: flops / bytes."""
    return _over(flops, moved)


def ridge(roof: Roof) -> float | None:
    """The intensity, in FLOPs a byte, from which arithmetic is the bound: peak / bandwidth."""
    return _over(roof.flops_per_s, roof.bytes_per_s)


def attainable(flops_per_byte: float | None, roof: Roof) -> float | None:
    """FLOPs a second at an intensity: min(peak, intensity x bandwidth)."""
    if flops_per_byte is None or roof.flops_per_s is None or roof.bytes_per_s is None:
        return None
    return min(roof.flops_per_s, flops_per_byte * roof.bytes_per_s)


def share_of_limit(
    flops: float | None, moved: float | None, seconds: float | None, roof: Roof
) -> float | None:
    """The least time over the time that was taken: 1 is as fast as the device can be."""
    least = floor(flops, moved, roof)
    return None if least is None else _over(least.seconds, seconds)


def _over(above: float | None, below: float | None) -> float | None:
    if above is None or below is None or below <= 0:
        return None
    return above / below
