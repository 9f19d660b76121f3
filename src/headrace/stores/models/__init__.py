"""Model files: where they come from, how they are checked, and where they lie."""

from headrace.stores.models.presets import BOX, EMBEDDER, PRESETS, Preset
from headrace.stores.models.schemes import is_uri
from headrace.stores.models.store import ModelFile, ModelStore, Progress

__all__ = ["BOX", "EMBEDDER", "PRESETS", "ModelFile", "ModelStore", "Preset", "Progress", "is_uri"]
