"""TLS for those who bring no context of their own."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl


@cache
def default_context() -> ssl.SSLContext:
    """Certificates and host names are verified against the system's roots; TLS 1.2 or newer.

    ``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` name other roots. Made once: reading the roots takes tens
    of milliseconds.
    """
    import ssl

    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def tls_failure(error: Exception) -> str | None:
    """Why TLS failed, in OpenSSL's words; ``None`` where ``error`` has nothing to do with TLS."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return None
