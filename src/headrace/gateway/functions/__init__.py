"""Any Python function behind HTTP: queued, bounded, counted, with keys where that is wanted."""

from headrace.gateway.functions.app import FunctionServer, inference_app
from headrace.gateway.functions.function import Function

__all__ = ["Function", "FunctionServer", "inference_app"]
