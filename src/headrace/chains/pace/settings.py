"""How an engine is asked, and how that stands."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class PaceSettings:
    """How an engine is asked.

    ``concurrency`` requests are under way at most, and a request that failed for a reason that may
    pass is made again ``retries`` times. An answer is given up after five times the time within
    which 99 of 100 came, ``least_cut_s`` at least, and after ``first_cut_s`` while too few are
    known. The run stops where nobody was reached for ``unreached_s`` (``never_reached_s`` where
    nobody ever was), or everybody was refused for ``refused_s``.
    """

    concurrency: int = 64
    retries: int = 5
    least_cut_s: float = 10.0
    first_cut_s: float = 600.0
    never_reached_s: float = 10.0
    unreached_s: float = 60.0
    refused_s: float = 600.0


@frozen(kw_only=True)
class PaceSnapshot:
    """How an engine is asked now: ``size`` of ``most`` requests may be under way, and ``running``
    are; nobody is sent for ``held_s``. ``refused``, ``failed`` and ``cut`` count requests that had
    to be made again; ``failing`` is the last error, while nothing has been answered since."""

    engine: str
    size: int
    most: int
    running: int
    waiting: int
    held_s: float
    answered: int
    refused: int
    failed: int
    cut: int
    failing: str | None
