"""What one of several processes may ask of the remote backends, so that all keep to the limits."""

from __future__ import annotations

from attrs import evolve, frozen

from headrace.contracts.errors import LLMInvalidRequestError
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.config import Config


@frozen
class Share:
    """The ``place``-th of ``processes`` equal parts; the parts of all are the whole, exactly."""

    place: int
    processes: int

    def of(self, config: Config) -> Config:
        """``config`` with this share of each backend's places; raises as ``check_shares``."""
        if self.processes == 1:
            return config
        _check(config, self.processes)
        return evolve(config, backends=tuple(map(self._of, config.backends)))

    def _of(self, backend: BackendConfig) -> BackendConfig:
        each, more = divmod(backend.max_concurrent_requests, self.processes)
        return evolve(backend, max_concurrent_requests=each + (self.place < more))


WHOLE = Share(0, 1)


def processes(workers: int) -> int:
    """How many ask the remote backends: the workers, and their supervisor for what it keeps."""
    return 1 if workers == 1 else workers + 1


def check_shares(config: Config) -> None:
    """Raise LLMInvalidRequestError for a limit that cannot be kept by so many workers."""
    if config.server.workers > 1:
        _check(config, processes(config.server.workers))


def _check(config: Config, among: int) -> None:
    workers = among - 1
    for i, backend in enumerate(config.backends):
        for name in ("requests_per_minute", "tokens_per_minute"):
            limit = getattr(backend, name)
            if limit is not None:
                raise LLMInvalidRequestError(
                    f"{name} is {limit:g}, but {workers} workers cannot keep a limit a minute "
                    f"together: leave it out, or set server.workers to 1 @ $.backends[{i}].{name}",
                    param=f"backends[{i}].{name}",
                )
        if backend.max_concurrent_requests < among:
            raise LLMInvalidRequestError(
                f"max_concurrent_requests is {backend.max_concurrent_requests}, must be at least "
                f"{among} with {workers} workers: they and their supervisor divide it, and each "
                f"needs one @ $.backends[{i}].max_concurrent_requests",
                param=f"backends[{i}].max_concurrent_requests",
            )
