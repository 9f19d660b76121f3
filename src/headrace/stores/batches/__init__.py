"""Batches, their requests and their files, kept on disk by one process at a time."""

from headrace.stores.batches.store import BatchStore

__all__ = ["BatchStore"]
