"""Model files: where they come from, how they are checked, and where they lie."""

from headrace.stores.models.presets import BOX, PRESETS, Preset
from headrace.stores.models.store import ModelFile, ModelStore, Progress

__all__ = ["BOX", "PRESETS", "ModelFile", "ModelStore", "Preset", "Progress"]
