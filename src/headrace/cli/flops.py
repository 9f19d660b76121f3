"""``headrace flops``: what one forward pass of a model costs, from its configuration alone."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from headrace.cli.output import console, print_json

if TYPE_CHECKING:
    from headrace.numbers.architecture import Forward, Model, Part
    from headrace.numbers.peaks import Peaks, Unknown
    from headrace.numbers.roofline import Roof

Count = Literal["dense", "causal"]
Logits = Literal["all", "last"]
Latent = Literal["expanded", "latent", "absorbed"]


def flops(
    model: Annotated[
        str,
        typer.Argument(
            help="A folder with a config.json, a config.json, a GGUF file, or a known model's name."
        ),
    ],
    prompt: Annotated[int, typer.Option(min=1, help="New tokens in each sequence.")] = 512,
    past: Annotated[int, typer.Option(min=0, help="Tokens before them, in the cache.")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="Sequences at once.")] = 1,
    source: Annotated[
        int | None, typer.Option(min=1, help="Length of an encoder's input, where there is one.")
    ] = None,
    image_px: Annotated[
        int | None, typer.Option(min=1, help="Side of a picture; else the model's own.")
    ] = None,
    logits: Annotated[Logits, typer.Option(help="Positions that logits are made for.")] = "all",
    attention: Annotated[
        Count, typer.Option(help="Pairs of tokens: all (dense), or what the mask lets through.")
    ] = "dense",
    latent: Annotated[
        Latent, typer.Option(help="How latent attention (DeepSeek) keeps its cache.")
    ] = "expanded",
    elementwise: Annotated[
        bool, typer.Option("--elementwise", help="Count norms, activations and softmax too.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="Of weights and cache, before what a config.json names.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Show least times on this device, by its driver's name for it."),
    ] = None,
    compute: Annotated[
        str | None,
        typer.Option(help="The dtype whose peak is taken: fp32, tf32, bf16, fp16, fp8 or int8."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the FLOPs and bytes of one forward pass: by module, in total, and of the next token.

    Nothing is run and no weights are read. By default the count is that of torch's FlopCounterMode.
    """
    from headrace.numbers.architecture import Conventions, Pass, decode, forward, generates
    from headrace.numbers.peaks import find_peaks

    found = _model(model, dtype)
    rules = Conventions(logits=logits, attention=attention, latent=latent, elementwise=elementwise)
    run = Pass(tokens=prompt, past=past, batch=batch, source=source, image_px=image_px)
    first = forward(found, run, rules)
    following = None
    if generates(found):
        following = forward(found, decode(past + prompt, batch, source=source), rules)
    peaks = None if device is None else find_peaks(device)
    compute = compute or found.weights.computes
    if as_json:
        print_json(_plain(found, first, following, peaks, compute))
    else:
        _show(found, first, following, peaks, compute)


def _model(model: str, dtype: str | None) -> Model:
    from headrace.cli.progress import shown
    from headrace.contracts.errors import LLMInvalidRequestError
    from headrace.numbers.architecture import model_from_config, model_from_gguf
    from headrace.stores.models import PRESETS, ModelStore, is_uri
    from headrace.stores.models.gguf_header import read_header, read_tensors

    uri = model if is_uri(model) else None
    if uri is not None:
        with shown() as progress:
            model = str(ModelStore().locate(uri, progress))
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LLMInvalidRequestError(
                f"model {model!r} is a folder without a config.json; one is needed", param="model"
            )
        path = path / "config.json"
    if path.suffix == ".json" and path.is_file():
        name = path.parent.resolve().name if path.name == "config.json" else path.stem
        name = uri or name
        return model_from_config(_config(path), name=name, dtype=dtype)
    if not path.is_file() and model.lower() not in PRESETS:
        raise LLMInvalidRequestError(
            f"model {model!r} is no folder with a config.json, no config.json, no GGUF file, no URI "
            f"and no known name; known: {', '.join(PRESETS)}",
            param="model",
        )
    if dtype is not None:
        raise LLMInvalidRequestError(
            f"--dtype {dtype} is for a config.json; a GGUF file says what its weights are",
            param="dtype",
        )
    with shown() as progress:
        place = ModelStore().find(model, progress)
    return model_from_gguf(read_header(place.path), read_tensors(place.path), name=place.name)


def _config(path: Path) -> Mapping[str, Any]:
    from headrace.contracts.errors import LLMInvalidRequestError

    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as wrong:
        raise LLMInvalidRequestError(
            f"{os.fspath(path)!r} is no configuration: {wrong}", param="model"
        ) from wrong
    if not isinstance(found, dict):
        raise LLMInvalidRequestError(
            f"{os.fspath(path)!r} holds no object; a model's config.json is one", param="model"
        )
    return found


def _plain(
    model: Model,
    first: Forward,
    following: Forward | None,
    peaks: Peaks | Unknown | None,
    compute: str | None,
) -> dict[str, Any]:
    from headrace.numbers.architecture import kv_bytes_per_token, memory_bytes, size

    def stage(done: Forward | None) -> dict[str, Any] | None:
        if done is None:
            return None
        return {
            "pass": done.run,
            "total": done.total,
            "memory_bytes": memory_bytes(done.total),
            "device": _limits(done, peaks, compute),
        }

    whole = size(model)
    return {
        "model": model.name,
        "parameters": whole.parameters,
        "stored_bytes": whole.stored_bytes,
        "kv_bytes_per_token": kv_bytes_per_token(model),
        "weights": first.weights,
        "conventions": first.rules,
        "uncounted": first.uncounted,
        "stages": {"asked": stage(first), "next_token": stage(following)},
        "tree": _branch(first.tree),
    }


def _branch(part: Part) -> dict[str, Any]:
    from headrace.numbers.architecture import total

    return {
        "name": part.name,
        "times": part.times,
        "total": total(part),
        "parts": [_branch(each) for each in part.parts],
    }


def _limits(done: Forward, peaks: Peaks | Unknown | None, compute: str | None) -> Any:
    """The least times on the device; None where none was named."""
    if peaks is None:
        return None
    from headrace.numbers.architecture import memory_bytes
    from headrace.numbers.peaks import Unknown
    from headrace.numbers.roofline import compute_time, floor, intensity, memory_time, ridge

    moved = memory_bytes(done.total)
    top = _roof(peaks, compute)
    return {
        "name": peaks.device,
        "dtype": compute,
        "compute_s": compute_time(done.total.flops, top),
        "memory_s": memory_time(moved, top),
        "floor": floor(done.total.flops, moved, top),
        "intensity_flops_per_byte": intensity(done.total.flops, moved),
        "ridge_flops_per_byte": ridge(top),
        "peaks": None if isinstance(peaks, Unknown) else peaks,
        "why_not": _why_not(peaks, compute),
    }


def _roof(peaks: Peaks | Unknown, compute: str | None) -> Roof:
    from headrace.numbers.peaks import roof

    return roof(peaks, compute or "")


def _why_not(peaks: Peaks | Unknown, compute: str | None) -> str | None:
    from headrace.numbers.peaks import Unknown, why_no_roof

    if compute is None and not isinstance(peaks, Unknown):
        return "the model does not say which dtype it computes in; name one with --compute"
    return why_no_roof(peaks, compute or "")


def _show(
    model: Model,
    first: Forward,
    following: Forward | None,
    peaks: Peaks | Unknown | None,
    compute: str | None,
) -> None:
    from rich.table import Table

    from headrace.numbers.architecture import kv_bytes_per_token, memory_bytes, size, total
    from headrace.numbers.architecture.shapes import Both
    from headrace.numbers.peaks import Peaks

    out = console()
    whole = size(model)
    out.print(
        f"{model.name}: {whole.parameters:,} parameters, {_bytes(whole.stored_bytes)} "
        f"({first.weights}), {_bytes(kv_bytes_per_token(model))} of cache a token\n"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("module")
    for name in ("FLOPs", "share", "weights", "cache read", "cache written", "activations"):
        table.add_column(name, justify="right")
    for depth, part, one_of_several in _rows(first.tree):
        cost = total(part)
        share = cost.flops / first.total.flops if first.total.flops else 0.0
        table.add_row(
            "  " * depth + (f"{part.name} (below: each)" if part.times > 1 else part.name),
            f"{cost.flops:,.0f}",
            "" if one_of_several else f"{share:.1%}",
            _bytes(cost.weight_bytes),
            _bytes(cost.kv_read_bytes),
            _bytes(cost.kv_write_bytes),
            _bytes(cost.activation_bytes),
        )
    out.print(table)
    out.print()
    for label, done in (("asked", first), ("next token", following)):
        if done is None:
            continue
        run = done.run
        out.print(
            f"{label}: {run.tokens} new after {run.past}, batch {run.batch}: "
            f"{done.total.flops:,.0f} FLOPs, {_exact(memory_bytes(done.total))} bytes at least"
        )
        if peaks is not None:
            out.print(f"  {_limit_line(done, peaks, compute)}")
    if isinstance(peaks, Peaks):
        note = f" ({peaks.note})" if peaks.note else ""
        out.print(f"Peaks of {peaks.device}{note}: {peaks.source}, gone through {peaks.checked}")
    if isinstance(model.shape, Both) and model.shape.image_tokens and not first.run.image_px:
        out.print(f"A picture takes {model.shape.image_tokens} of the prompt's tokens.")
    out.print("\nCounted so:")
    for line in first.rules:
        out.print(f"  {line}")
    if first.uncounted:
        out.print("Not counted:")
        for line in first.uncounted:
            out.print(f"  {line}")


def _rows(part: Part, depth: int = 0, below: bool = False) -> Iterator[tuple[int, Part, bool]]:
    """What costs anything, from the top; the last says that it stands below one of several."""
    from headrace.numbers.architecture import total

    cost = total(part)
    figures = (cost.flops, cost.weight_bytes, cost.kv_read_bytes, cost.kv_write_bytes)
    if all(figure == 0 for figure in figures):
        return
    yield depth, part, below
    for each in part.parts:
        yield from _rows(each, depth + 1, below or part.times > 1)


def _limit_line(done: Forward, peaks: Peaks | Unknown, compute: str | None) -> str:
    said = _limits(done, peaks, compute)
    if said["floor"] is None:
        memory = said["memory_s"]
        least = f"moving the bytes takes {memory * 1e3:.3f} ms; " if memory is not None else ""
        return f"{least}no least time: {said['why_not'] or 'bytes are unknown'}"
    return (
        f"on {said['name']} in {compute}: {said['floor'].seconds * 1e3:.3f} ms at least, bound by "
        f"{said['floor'].bound} (arithmetic {said['compute_s'] * 1e3:.3f} ms, memory "
        f"{said['memory_s'] * 1e3:.3f} ms; {said['intensity_flops_per_byte']:.1f} FLOPs a byte, "
        f"ridge {said['ridge_flops_per_byte']:.1f})"
    )


def _exact(value: float | None) -> str:
    return "an unknown number of" if value is None else f"{value:,.0f}"


def _bytes(value: float | None) -> str:
    if value is None:
        return "?"
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= scale:
            return f"{value / scale:.2f} {unit}"
    return f"{value:.0f} B"
