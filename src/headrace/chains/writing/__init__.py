"""Results out: in the order of the input, and under their own name only when all are there."""

from headrace.chains.writing.failures import Errors
from headrace.chains.writing.files import size_of
from headrace.chains.writing.outputs import Results, results_at
from headrace.chains.writing.schema import schema_of_results
from headrace.chains.writing.shapes import Shape, Shaping

__all__ = ["Errors", "Results", "Shape", "Shaping", "results_at", "schema_of_results", "size_of"]
