"""What the three APIs share: batches are made, found, cancelled and forgotten here."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from attrs import define, evolve
from starlette.types import Scope

from headrace.contracts.batches import Batch, BatchAsked, BatchCounts
from headrace.contracts.errors import LLMInvalidRequestError, LLMRateLimitError
from headrace.gateway.asgi import header
from headrace.gateway.batches.faces import FACES
from headrace.gateway.batches.home import Home
from headrace.gateway.batches.work import Work
from headrace.gateway.batches_config import BatchesConfig
from headrace.gateway.owner import owner_of
from headrace.net.clock import Clock
from headrace.stores.batches import BatchStore
from headrace.stores.batches.shelf import Face, StoredBatch, requests_file, results_file


@define(kw_only=True, eq=False)
class Desk:
    """Takes batches in and tells how they stand. Nobody sees another's: it is as if it were not there."""

    home: Home
    work: Work
    settings: BatchesConfig
    clock: Clock

    async def create(self, scope: Scope, face: Face, asked: BatchAsked) -> Batch:
        """A batch of what is ``asked``; raises LLMInvalidRequestError or LLMRateLimitError."""
        row, owner, now = FACES[face], owner_of(scope), self.clock.wall()
        batch = Batch(
            batch_id=row.prefix + uuid.uuid4().hex,
            phase="validating",
            created=now,
            endpoint=asked.endpoint,
            model=asked.model,
            counts=BatchCounts(total=len(asked.items)),
            input_files=asked.input_files,
            metadata=asked.metadata,
            window_s=asked.window_s,
            expires=now + asked.window_s,
        )
        stored = StoredBatch(
            owner=owner, face=face, batch=batch, outputs_kept_s=asked.outputs_kept_s
        )

        def keep(store: BatchStore) -> None:
            self._check(store, stored, asked, now)
            if asked.items:
                name = requests_file(batch.batch_id)
                with store.files.begin(name) as file:
                    file.writelines(
                        row.codec.write_item(item, asked.endpoint) + b"\n" for item in asked.items
                    )
                store.files.place_begun(name)
            store.batches.add(stored)

        await self.home.do(keep)
        self.work.take(batch.batch_id)
        return self._dressed(scope, stored).batch

    async def find(self, scope: Scope, face: Face, batch_id: str) -> Batch:
        """The batch of that id; raises LLMInvalidRequestError, status 404, where there is none."""
        return self._dressed(scope, await self._stored(scope, face, batch_id)).batch

    async def list(self, scope: Scope, face: Face) -> Sequence[Batch]:
        """The caller's batches, the newest first."""
        owner = owner_of(scope)
        found = await self.home.do(lambda store: store.batches.list(owner, face))
        return [self._dressed(scope, each).batch for each in found]

    async def cancel(self, scope: Scope, face: Face, batch_id: str) -> Batch:
        """Have a batch end now; what was answered already stays in its results."""
        stored = await self._stored(scope, face, batch_id)
        if stored.batch.has_ended:
            raise LLMInvalidRequestError(
                f"Batch '{batch_id}' cannot be cancelled: it has ended already "
                f"({stored.batch.phase}).",
                code="not_cancellable",
            )
        now = self.clock.wall()
        await self.home.do(lambda store: store.batches.cancel(batch_id, now))
        self.work.take(batch_id)
        return await self.find(scope, face, batch_id)

    async def delete(self, scope: Scope, face: Face, batch_id: str) -> None:
        """Forget a batch that has ended."""
        stored = await self._stored(scope, face, batch_id)
        if not stored.batch.has_ended:
            raise LLMInvalidRequestError(
                f"Batch '{batch_id}' has not ended yet; cancel it first.", code="not_ended"
            )
        await self.home.do(lambda store: forget(store, batch_id))

    async def _stored(self, scope: Scope, face: Face, batch_id: str) -> StoredBatch:
        owner = owner_of(scope)
        found = await self.home.do(lambda store: store.batches.find(batch_id))
        if found is None or (found.owner, found.face) != (owner, face):
            raise LLMInvalidRequestError(
                f"No batch found with id '{batch_id[:100]}'.",
                status=404,
                param="batch_id",
                code="batch_not_found",
            )
        return found

    def _check(self, store: BatchStore, stored: StoredBatch, asked: BatchAsked, now: float) -> None:
        """Refuse what cannot be begun."""
        mine = [each for each in store.batches.unfinished() if each.owner == stored.owner]
        if len(mine) >= self.settings.max_open:
            raise LLMRateLimitError(
                f"{len(mine)} of your batches have not ended, as many as may; ask again when one "
                "has, or cancel one",
                retry_after_s=60.0,
                code="too_many_batches",
            )
        for file_id in asked.input_files:
            file = store.files.find(stored.owner, file_id, now)
            if file is None or file.purpose != "batch":
                raise LLMInvalidRequestError(
                    f"No file for a batch found with id '{file_id[:100]}'; bring one with the "
                    "purpose 'batch' to /v1/files.",
                    param="input_files" if stored.face == "mistral" else "input_file_id",
                    code="file_not_found",
                )
        brought = sum(len(item.body) for item in asked.items)
        if brought:
            check_space(store, brought, self.settings.max_stored_bytes)

    def _dressed(self, scope: Scope, stored: StoredBatch) -> StoredBatch:
        """With where its results are, where they are in no file."""
        batch = stored.batch
        if FACES[stored.face].names_files or not batch.has_ended:
            return stored
        url = f"{_origin(scope)}/v1/messages/batches/{batch.batch_id}/results"
        return evolve(stored, batch=evolve(batch, results_url=url))


def forget(store: BatchStore, batch_id: str) -> None:
    """Remove a batch that has ended, with what lies in no caller's file."""
    store.batches.delete(batch_id)
    for name in (requests_file(batch_id), results_file(batch_id)):
        store.files.path(name).unlink(missing_ok=True)


def check_space(store: BatchStore, more: int, most: int) -> None:
    """Refuse ``more`` bytes where they would be too many together with all that is kept."""
    kept = store.files.total_bytes()
    if kept + more > most:
        raise LLMInvalidRequestError(
            f"this server keeps {kept} bytes of files and takes no more than {most}; delete some, "
            "or wait until they expire",
            status=413,
            code="storage_full",
        )


def _origin(scope: Scope) -> str:
    """The address by which the caller came."""
    told = header(scope, b"x-forwarded-proto")
    scheme = told if told in (b"http", b"https") else scope.get("scheme", "http").encode()
    host = header(scope, b"host") or b"127.0.0.1"
    return f"{scheme.decode()}://{host.decode('latin-1')}"
