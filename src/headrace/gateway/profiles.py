"""Profiles over HTTP: asked for, followed, ended, and their files fetched.

Who makes them is handed in. Without one the paths say how to have it.
"""

from __future__ import annotations

import asyncio
import os
import stat
from io import FileIO
from pathlib import Path as File
from pathlib import PurePosixPath
from urllib.parse import quote

from attrs import frozen
from starlette.routing import Route as Path
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.contracts.convert import from_json, to_json, to_plain
from headrace.contracts.errors import LLMInvalidRequestError
from headrace.contracts.profiling import LLMProfileRequest, ProfileList, ProfileService
from headrace.gateway.asgi import Handler, Headers, answer, read_body
from headrace.gateway.standing import standing_of
from headrace.wire import json as wire_json

BASE = "/v1/profiles"
_PIECE = 1 << 18
_TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".json": b"application/json",
    ".md": b"text/markdown; charset=utf-8",
    ".yaml": b"application/yaml",
    ".csv": b"text/csv; charset=utf-8",
    ".txt": b"text/plain; charset=utf-8",
    ".gz": b"application/gzip",
}
# A file may hold what a model has said. It is to be kept, and is nothing of this server's own.
_SAFETY: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cache-control", b"no-store"),
]


@frozen
class Profiles:
    """The handlers of ``/v1/profiles``, over ``service``."""

    service: ProfileService | None

    def paths(self) -> list[Path]:
        """Every path, with what answers there."""
        one = BASE + "/{run_id}"
        if self.service is None:
            every = ["GET", "POST", "DELETE"]
            off: ASGIApp = Handler(_is_off)
            return [Path(path, off, methods=every) for path in (BASE, BASE + "/{rest:path}")]
        return [
            Path(BASE, _Submit(self.service), methods=["POST"]),
            Path(BASE, Handler(self.list), methods=["GET"]),
            Path(one, Handler(self.status), methods=["GET"]),
            Path(one, Handler(self.cancel), methods=["DELETE"]),
            Path(one + "/artifacts", Handler(self.artifacts), methods=["GET"]),
            Path(one + "/artifacts/{name:path}", Handler(self.artifact), methods=["GET"]),
        ]

    @property
    def _made(self) -> ProfileService:
        assert self.service is not None
        return self.service

    async def list(self, scope: Scope, send: Send) -> None:
        """Every run, the newest first."""
        body = to_json(ProfileList(runs=[*await self._made.list()]))
        await answer(send, 200, body, scope["headrace.headers"])

    async def status(self, scope: Scope, send: Send) -> None:
        """How one stands."""
        body = to_json(await self._made.status(scope["path_params"]["run_id"]))
        await answer(send, 200, body, scope["headrace.headers"])

    async def cancel(self, scope: Scope, send: Send) -> None:
        """End one."""
        body = to_json(await self._made.cancel(scope["path_params"]["run_id"]))
        await answer(send, 200, body, scope["headrace.headers"])

    async def artifacts(self, scope: Scope, send: Send) -> None:
        """The files of one."""
        found = await self._made.artifacts(scope["path_params"]["run_id"])
        body = wire_json.encode({"artifacts": [to_plain(each) for each in found]})
        await answer(send, 200, body, scope["headrace.headers"])

    async def artifact(self, scope: Scope, send: Send) -> None:
        """One file of one, piece by piece."""
        run_id, name = scope["path_params"]["run_id"], scope["path_params"]["name"]
        known = await self._made.artifacts(run_id)
        status = await self._made.status(run_id)
        # Only what is listed is ever opened: a path of the caller's own making is none of it.
        file = None
        if any(each.name == name for each in known):
            file = await asyncio.to_thread(_open, File(status.artifacts_dir), name)
        if file is None:
            raise LLMInvalidRequestError(
                f"profile {run_id!r} has no file {name[:120]!r}; it has "
                f"{', '.join(each.name for each in known) or 'none yet'}",
                status=404,
                param="name",
                code="artifact_not_found",
            )
        with file:
            await _send_file(send, file, name, scope["headrace.headers"])


@frozen
class _Submit:
    """The ASGI application that takes a profile in."""

    service: ProfileService

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, standing_of(scope).config.server)
        accepted = await self.service.submit(from_json(body, LLMProfileRequest))
        place = f"{BASE}/{accepted.run_id}".encode()
        headers = [*scope["headrace.headers"], (b"location", place)]
        await answer(send, 202, to_json(accepted), headers)


async def _is_off(scope: Scope, send: Send) -> None:
    raise LLMInvalidRequestError(
        "this server makes no profiles; profiles.enabled: true in its configuration "
        "(HEADRACE_PROFILES__ENABLED=true) has it make them",
        status=404,
        code="profiles_disabled",
    )


def _open(folder: File, name: str) -> FileIO | None:
    """The plain file ``name`` below ``folder``, reached by way of no link; None where there is none."""
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or any(part in ("..", "/") for part in parts):
        return None
    at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        # Not to wait for a writer, should it be a pipe.
        found = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
    except OSError:  # it is gone, or is a link by now
        return None
    finally:
        os.close(at)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        return None
    return FileIO(found)


async def _send_file(send: Send, file: FileIO, name: str, headers: Headers) -> None:
    left = os.fstat(file.fileno()).st_size
    last = PurePosixPath(name)
    about = [
        (b"content-type", _TYPES.get(last.suffix, b"application/octet-stream")),
        (b"content-length", str(left).encode()),
        (b"content-disposition", f"attachment; filename*=UTF-8''{quote(last.name)}".encode()),
        *_SAFETY,
        *headers,
    ]
    await send({"type": "http.response.start", "status": 200, "headers": about})
    # No more than was announced, though the file may grow.
    while left > 0:
        piece = await asyncio.to_thread(file.read, min(left, _PIECE))
        if not piece:
            raise OSError(f"{name} became shorter while it was sent")
        left -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
