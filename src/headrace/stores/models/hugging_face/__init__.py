"""A model in a GGUF file as transformers, vLLM and MAX want it: a folder with safetensors."""

from headrace.stores.models.hugging_face.folder import Exported, export_folder
from headrace.stores.models.hugging_face.weights import DTYPES

__all__ = ["DTYPES", "Exported", "export_folder"]
