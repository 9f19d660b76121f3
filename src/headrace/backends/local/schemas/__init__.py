"""JSON Schemas that the engine in the box holds an answer to, and the judge of what came of it."""
