"""Responses that were given, kept for their callers to go on from: a Protocol, and memory."""

from headrace.stores.responses.memory import MemoryResponses
from headrace.stores.responses.protocol import ResponseStore, StoredResponse

__all__ = ["MemoryResponses", "ResponseStore", "StoredResponse"]
