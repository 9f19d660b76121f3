"""``headrace model export`` and ``quantize``: a model's file, rewritten."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headrace.cli.output import console, print_json

_MODEL = typer.Argument(help="A known model's name, or the path or URI of a GGUF file.")
_AS_JSON = typer.Option("--json", help="Print JSON.")


def export(
    model: Annotated[str, _MODEL],
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    to: Annotated[
        str, typer.Option("--to", help="The form: safetensors, in a folder as Hugging Face has it.")
    ] = "safetensors",
    dtype: Annotated[str, typer.Option(help="Its numbers: bf16, f16 or f32.")] = "bf16",
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Write a GGUF model for engines that read none: vLLM, MAX, transformers.

    The folder holds the weights as plain numbers, the configuration, the tokenizer and the chat
    template. It appears whole or not at all; one that is there already is left as it is.
    """
    from headrace.cli.progress import shown
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.stores.models import ModelStore
    from headrace.stores.models.hugging_face import export_folder

    if to != "safetensors":
        raise LLMInvalidRequestError(f"--to is {to!r}; it must be safetensors", param="to")
    with shown() as progress:
        source = ModelStore().find(model, progress).path
        made = export_folder(source, folder, dtype, progress)
    if as_json:
        print_json(made)
        return
    out = console()
    size = sum(made.files.values())
    out.print(
        f"{made.folder} is written: {made.architecture}, {made.parameters:,} parameters, "
        f"{made.dtype}, {size / 1e6:,.0f} MB"
    )
    for note in made.notes:
        out.print(f"  {note}")
    out.print(f"  -> vllm serve {made.folder}")


def quantize(
    model: Annotated[str, _MODEL],
    weight_type: Annotated[
        str, typer.Argument(metavar="TYPE", help="GGUF's name of a type: Q8_0, Q4_K, F16.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file. [default: MODEL.TYPE.gguf here]"),
    ] = None,
    as_json: Annotated[bool, _AS_JSON] = False,
) -> None:
    """Write a GGUF model with its weights in another type: smaller, faster, or more exact.

    Norms and whatever the type has no room for stay as they are, and are named. The file appears
    whole or not at all; one that is there already is left as it is.
    """
    from headrace.cli.progress import shown
    from headrace.stores.models import ModelStore
    from headrace.stores.models.quantise import quantise_file

    with shown() as progress:
        found = ModelStore().find(model, progress)
        target = output or Path(f"{found.name}.{weight_type.upper()}.gguf")
        made = quantise_file(found.path, target, weight_type, progress)
    if as_json:
        print_json(made)
        return
    out = console()
    out.print(
        f"{made.file} is written: {made.rewritten} of {made.tensors} tensors in {made.weight_type}, "
        f"{made.size_bytes / 1e6:,.1f} MB of {made.source_bytes / 1e6:,.1f} MB before"
    )
    for note in made.notes:
        out.print(f"  {note}")
