"""AWS Signature Version 4: what says to S3 who asks. No I/O, no clock.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote

from headrace.net.transport import Headers
from headrace.stores.s3.settings import S3Keys

UNSIGNED = "UNSIGNED-PAYLOAD"

_ALGORITHM = "AWS4-HMAC-SHA256"
# S3 escapes all but these, and a path once only.
_UNRESERVED = "-._~"


def escaped(text: str) -> str:
    """``text`` as part of a query."""
    return quote(text, safe=_UNRESERVED)


def escaped_path(text: str) -> str:
    """``text`` as a path whose slashes stay."""
    return quote(text, safe=_UNRESERVED + "/")


def query_text(query: dict[str, str]) -> str:
    """``query`` in the order in which it is signed."""
    return "&".join(f"{name}={value}" for name, value in _sorted(query))


def signed_headers(
    method: str,
    host: str,
    path: str,
    query: dict[str, str],
    headers: Headers,
    *,
    keys: S3Keys,
    region: str,
    at: datetime,
    payload_sha256: str,
) -> Headers:
    """``headers``, with those that sign the request; ``path`` is as it goes on the wire."""
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    headers = (*headers, ("x-amz-date", stamp), ("x-amz-content-sha256", payload_sha256))
    if keys.token is not None:
        headers = (*headers, ("x-amz-security-token", keys.token.reveal()))
    # Not Range and If-Range: they only say how much is wanted, and proxies may change them.
    signed = {
        name.lower(): " ".join(value.split())
        for name, value in headers
        if name.lower().startswith("x-amz-") or name.lower().startswith("content-")
    }
    signed["host"] = host
    names = ";".join(sorted(signed))
    scope = _scope(at, region)
    signature = _signature(method, path, query, signed, payload_sha256, keys, region, at)
    said = f"{_ALGORITHM} Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    return (*headers, ("authorization", said))


def signed_query(
    method: str,
    host: str,
    path: str,
    *,
    keys: S3Keys,
    region: str,
    at: datetime,
    lasts_s: int,
) -> str:
    """The query that lets whoever has it make the request, for ``lasts_s`` seconds."""
    query = {
        "X-Amz-Algorithm": _ALGORITHM,
        "X-Amz-Credential": f"{keys.key_id}/{_scope(at, region)}",
        "X-Amz-Date": at.strftime("%Y%m%dT%H%M%SZ"),
        "X-Amz-Expires": str(lasts_s),
        "X-Amz-SignedHeaders": "host",
    }
    if keys.token is not None:
        query["X-Amz-Security-Token"] = keys.token.reveal()
    signature = _signature(method, path, query, {"host": host}, UNSIGNED, keys, region, at)
    return f"{query_text(query)}&X-Amz-Signature={signature}"


def _signature(
    method: str,
    path: str,
    query: dict[str, str],
    signed: dict[str, str],
    payload_sha256: str,
    keys: S3Keys,
    region: str,
    at: datetime,
) -> str:
    names = sorted(signed)
    canonical = "\n".join(
        [
            method,
            path,
            query_text(query),
            *(f"{name}:{signed[name]}" for name in names),
            "",
            ";".join(names),
            payload_sha256,
        ]
    )
    to_sign = "\n".join(
        [
            _ALGORITHM,
            at.strftime("%Y%m%dT%H%M%SZ"),
            _scope(at, region),
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{keys.secret.reveal()}".encode()
    for part in (at.strftime("%Y%m%d"), region, "s3", "aws4_request", to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _scope(at: datetime, region: str) -> str:
    return f"{at:%Y%m%d}/{region}/s3/aws4_request"


def _sorted(query: dict[str, str]) -> list[tuple[str, str]]:
    return sorted((escaped(name), escaped(value)) for name, value in query.items())
