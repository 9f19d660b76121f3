"""By which protocol a backend is asked, as its address says."""

from __future__ import annotations

from headrace.backends.remote import Remote


def by_scheme(remote: Remote) -> Remote:
    """``remote``; one at ``grpc://`` or ``grpcs://`` as it is asked by that.

    Raises LLMInvalidRequestError where it cannot be.
    """
    if not remote.base_url.startswith(("grpc://", "grpcs://")):
        return remote
    from headrace.backends.kserve_grpc import by_grpc

    return by_grpc(remote)
