"""The guard of the transport's tests, for those of the client that use real sockets."""

from __future__ import annotations

from net.conftest import _uvloop_has_run_once, run

__all__ = ["_uvloop_has_run_once", "run"]
