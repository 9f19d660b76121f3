"""The files in which the results of a batch lie once it has ended."""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define

from headrace.contracts.batches import BatchPhase, KeptFile
from headrace.gateway.batches.faces import FaceRow
from headrace.stores.batches import BatchStore
from headrace.stores.batches.shelf import StoredBatch, results_file


def write_outputs(
    store: BatchStore,
    stored: StoredBatch,
    row: FaceRow,
    phase: BatchPhase,
    *,
    now: float,
    keep_s: float,
) -> None:
    """End ``stored`` in ``phase``, its results in files; it blocks.

    Done again after a crash it writes the same files: their ids follow from the batch's.
    """
    batch_id = stored.batch.batch_id
    if not row.names_files:
        name = results_file(batch_id)
        _write(store, name, (line for _, line in store.batches.results(batch_id)))
        store.files.place_begun(name)
        store.batches.end(batch_id, phase, now, output_file=None, error_file=None)
        return
    kept_s = keep_s if stored.outputs_kept_s is None else stored.outputs_kept_s
    ids: dict[str, str | None] = {}
    for kind, is_wanted in (("output", True), ("error", False)):
        file_id = f"file-{batch_id.removeprefix(row.prefix)}-{kind}"
        wanted = (
            line
            for fate, line in store.batches.results(batch_id)
            if (fate == "succeeded") is is_wanted
        )
        written = _write(store, file_id, wanted)
        if not written.lines:
            store.files.drop_begun(file_id)
            ids[kind] = None
            continue
        ids[kind] = file_id
        file = KeptFile(
            file_id=file_id,
            name=f"{batch_id}_{kind}.jsonl",
            purpose="batch_output",
            size=written.size,
            lines=written.lines,
            created=int(now),
            expires=int(now + kept_s),
            is_ours=True,
        )
        store.files.add(stored.owner, file)
    store.batches.end(batch_id, phase, now, output_file=ids["output"], error_file=ids["error"])


@define
class _Written:
    lines: int = 0
    size: int = 0


def _write(store: BatchStore, name: str, lines: Iterable[bytes]) -> _Written:
    written = _Written()
    with store.files.begin(name) as file:
        for line in lines:
            written.lines += 1
            written.size += file.write(line + b"\n")
    return written
