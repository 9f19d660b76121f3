"""A model made ready by transformers: which class, which numbers, which attention, where it lies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import evolve, frozen

from headrace.bench.profile import needs
from headrace.bench.profile.brought import infers, side_of
from headrace.bench.profile.fitting import check_fits
from headrace.bench.profile.stopping import memory_told
from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.profiling import LLMProfileRequest

DTYPES: Mapping[str, str] = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
_SHORT = {name: short for short, name in DTYPES.items()}


@frozen(kw_only=True)
class Loaded:
    """A model that runs. ``sees`` says whether it takes pictures; ``random`` that its weights mean nothing.

    ``config`` is in the words of its file. ``infers`` says that its own ``infer`` prepares what it is
    given (``brought``). ``processor`` prepares pictures with text, ``tokenizer`` text alone; either may be missing where
    the weights are random, and then tokens are made up.
    """

    model: Any
    config: Mapping[str, Any]
    name: str
    device: str
    dtype: str
    attention: str
    sees: bool
    random: bool
    infers: bool = False
    compiled: bool = False
    processor: Any = None
    tokenizer: Any = None
    parameters: int = 0
    weight_bytes: int = 0
    notes: tuple[str, ...] = ()

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")


def check_device(device: str) -> None:
    """LLMCapabilityError where ``device`` is not here."""
    torch = needs.torch()
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise LLMInvalidRequestError(
            f"device is {device!r}; cpu, cuda or cuda:<number> is needed", param="device"
        )
    if not torch.cuda.is_available():
        raise LLMCapabilityError(
            f"device {device!r} is not there: torch finds no CUDA here; ask for cpu", param="device"
        )
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        raise LLMCapabilityError(
            f"device {device!r} is not there: the last one is cuda:{count - 1}", param="device"
        )


def usual_device() -> str:
    """The first GPU where there is one, else the processor."""
    return "cuda:0" if needs.torch().cuda.is_available() else "cpu"


def load(request: LLMProfileRequest) -> Loaded:
    """The model that ``request`` names, on its device, ready to run.

    Raises LLMInvalidRequestError for what is no model, LLMCapabilityError for what is not here, and
    NoMemoryError where it does not fit.
    """
    transformers = needs.transformers()
    check_device(request.device)
    transformers.utils.logging.disable_progress_bar()
    path = Path(request.model_path)
    place = _place(path)
    config = _config(transformers, path, place, request)
    dtype = _dtype(request, config)
    auto, sees = _auto(transformers, config, request)
    notes: list[str] = []
    words = _words(config, path, request)
    name = path.name if path.suffix != ".json" else path.parent.name
    hint = "take a smaller dtype, a smaller model, or a device with more memory"
    check_fits(words, name=name, dtype=dtype, device=request.device, hint=hint)
    with memory_told(f"loading {path.name}", hint):
        if request.random_weights:
            model = _random(auto, config, request, dtype)
            notes.append("The weights are random: times are real, what the model says is not.")
        else:
            model = _weights(transformers, auto, place, config, request, dtype, notes)
        model = model.to(request.device).eval()
    own = infers(model)
    processor, tokenizer = _readers(transformers, place, request, sees and not own, notes)
    if own:
        notes.append(_prepared_by_itself(model, tokenizer, path, side_of(words)))
    sizes = [(p.numel(), p.element_size()) for p in model.parameters()]
    loaded = Loaded(
        model=model,
        config=words,
        name=name,
        device=request.device,
        dtype=dtype,
        attention=str(getattr(model.config, "_attn_implementation", None) or "the model's own"),
        sees=sees,
        random=request.random_weights,
        infers=own,
        processor=processor,
        tokenizer=tokenizer,
        parameters=sum(count for count, _ in sizes),
        weight_bytes=sum(count * each for count, each in sizes),
        notes=tuple(notes),
    )
    return _compiled(loaded) if request.compile else loaded


def _words(config: Any, path: Path, request: LLMProfileRequest) -> Mapping[str, Any]:
    """The configuration in plain words; of a class that the model brings, those of its file.

    Such a class may call its kind otherwise than the file does, as DeepSeek-OCR's does.
    """
    plain: Mapping[str, Any] = config.to_dict()
    if request.trust_remote_code and plain.get("auto_map") and path.suffix.lower() != ".gguf":
        plain = json.loads(_config_file(path).read_text(encoding="utf-8"))
    return plain


def _prepared_by_itself(model: Any, tokenizer: Any, path: Path, side: int | None) -> str:
    if tokenizer is None:
        raise LLMInvalidRequestError(
            f"model_path {str(path)!r} has no tokenizer that can be loaded, and the model's own "
            "infer(), which prepares its inputs, needs one",
            param="model_path",
        )
    size = "" if side is None else f" ({side} px)"
    return (
        f"Inputs are prepared by {type(model).__name__}.infer, a picture as one view of the whole"
        f"{size} and without crops; the loop of steps is ours."
    )


def _compiled(loaded: Loaded) -> Loaded:
    # Prompts differ in length and the cache grows: shapes are dynamic from the start.
    loaded.model.compile(dynamic=True)
    return evolve(loaded, compiled=True)


def _place(path: Path) -> dict[str, Any]:
    """How transformers is told where the model lies; nothing is ever fetched."""
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise _no_model(f"{str(path)!r} is a directory without a config.json")
        return {"pretrained_model_name_or_path": str(path), "local_files_only": True}
    if not path.is_file():
        raise _no_model(f"{str(path)!r} does not exist")
    if path.suffix == ".json":
        return {"pretrained_model_name_or_path": str(path.parent), "local_files_only": True}
    if path.suffix.lower() != ".gguf":
        raise _no_model(f"{str(path)!r} is no model")
    needs.accelerate()
    return {
        "pretrained_model_name_or_path": str(path.parent),
        "gguf_file": path.name,
        "local_files_only": True,
    }


def _no_model(what: str) -> LLMInvalidRequestError:
    return LLMInvalidRequestError(
        f"model_path {what}; a directory with a config.json, or a GGUF file, is needed",
        param="model_path",
    )


def _config(
    transformers: Any, path: Path, place: Mapping[str, Any], request: LLMProfileRequest
) -> Any:
    if "gguf_file" not in place:
        _plain_config(path)
    try:
        return transformers.AutoConfig.from_pretrained(
            **place, trust_remote_code=request.trust_remote_code
        )
    except ImportError as missing:
        raise _needs_more(request, missing) from missing
    except (ValueError, OSError, KeyError, TypeError, AttributeError) as wrong:
        if "trust_remote_code" in str(wrong):
            raise LLMInvalidRequestError(
                f"model_path {str(path)!r} brings Python code of its own; it is run only with "
                "trust_remote_code (--trust-remote-code), for it may do whatever you may",
                param="trust_remote_code",
            ) from wrong
        raise LLMInvalidRequestError(
            f"model_path {str(path)!r} has a configuration that transformers "
            f"{transformers.__version__} cannot read: {_first_line(wrong)}",
            param="model_path",
        ) from wrong


def _config_file(path: Path) -> Path:
    return path / "config.json" if path.is_dir() else path


def _plain_config(path: Path) -> None:
    file = _config_file(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as wrong:
        raise LLMInvalidRequestError(
            f"{str(file)!r} is no JSON: {wrong}", param="model_path"
        ) from wrong
    if not isinstance(found, dict) or not (found.get("model_type") or found.get("auto_map")):
        raise LLMInvalidRequestError(
            f"{str(file)!r} has no model_type; a model's configuration is needed",
            param="model_path",
        )


def _dtype(request: LLMProfileRequest, config: Any) -> str:
    if request.dtype is not None:
        if request.dtype not in DTYPES:
            raise LLMInvalidRequestError(
                f"dtype is {request.dtype!r}; it must be {', '.join(DTYPES)}", param="dtype"
            )
        return request.dtype
    for holder in (config, getattr(config, "text_config", None)):
        named = str(getattr(holder, "dtype", None)).removeprefix("torch.")
        if named in _SHORT:
            return _SHORT[named]
    return "fp32"


def _auto(transformers: Any, config: Any, request: LLMProfileRequest) -> tuple[Any, bool]:
    """The class that loads it, and whether it takes pictures."""
    from transformers.models.auto import modeling_auto

    kind = config.model_type
    if kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return transformers.AutoModelForImageTextToText, True
    if kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForCausalLM, False
    brought = getattr(config, "auto_map", None) or {}
    for name in ("AutoModelForImageTextToText", "AutoModelForCausalLM", "AutoModel"):
        if request.trust_remote_code and name in brought:
            return getattr(transformers, name), hasattr(config, "vision_config")
    raise LLMInvalidRequestError(
        f"model_type is {kind!r}, which transformers {transformers.__version__} loads neither as a "
        "causal language model nor as image-text-to-text",
        param="model_path",
    )


def _attention(request: LLMProfileRequest, dtype: str) -> str | None:
    """Which implementation is asked for; None leaves it to transformers."""
    if request.attention is not None:
        return request.attention
    if not request.use_flash_attn:
        return "eager"
    if request.device.startswith("cuda") and dtype != "fp32":
        from transformers.utils import is_flash_attn_2_available

        if is_flash_attn_2_available():
            return "flash_attention_2"
    return None


def _random(auto: Any, config: Any, request: LLMProfileRequest, dtype: str) -> Any:
    torch = needs.torch()
    torch.manual_seed(0)
    with torch.device(request.device):
        return _made(
            lambda: auto.from_config(
                config,
                dtype=getattr(torch, DTYPES[dtype]),
                attn_implementation=_attention(request, dtype),
                trust_remote_code=request.trust_remote_code,
            ),
            request,
        )


def _weights(
    transformers: Any,
    auto: Any,
    place: Mapping[str, Any],
    config: Any,
    request: LLMProfileRequest,
    dtype: str,
    notes: list[str],
) -> Any:
    torch = needs.torch()
    given = {} if "gguf_file" in place else {"config": config}
    model, told = _made(
        lambda: auto.from_pretrained(
            **place,
            **given,
            dtype=getattr(torch, DTYPES[dtype]),
            attn_implementation=_attention(request, dtype),
            trust_remote_code=request.trust_remote_code,
            output_loading_info=True,
        ),
        request,
    )
    missing = sorted(told.get("missing_keys") or ())
    if missing:
        shown = ", ".join(missing[:3])
        notes.append(
            f"{len(missing)} weights are not in the model's files and were taken at random: {shown}"
        )
    return model


def _made(make: Any, request: LLMProfileRequest) -> Any:
    """What ``make`` makes; what transformers finds wrong with it becomes an error of ours."""
    try:
        return make()
    except ImportError as missing:
        raise _needs_more(request, missing) from missing
    except (OSError, ValueError, KeyError, TypeError, NotImplementedError) as wrong:
        random = "" if request.random_weights else "; random weights of its shape need no files"
        raise LLMInvalidRequestError(
            f"model_path {request.model_path!r} cannot be loaded: {_first_line(wrong)}{random}",
            param="model_path",
        ) from wrong


def _needs_more(request: LLMProfileRequest, missing: ImportError) -> LLMCapabilityError:
    said = " ".join(str(missing).split())
    found = needs.transformers().__version__
    return LLMCapabilityError(
        f"model_path {request.model_path!r} needs what is not installed here, where transformers is "
        f"{found}: {said}"
    )


def _readers(
    transformers: Any,
    place: Mapping[str, Any],
    request: LLMProfileRequest,
    sees: bool,
    notes: list[str],
) -> tuple[Any, Any]:
    """Processor and tokenizer; each may be missing where the weights mean nothing anyway."""
    wanted = transformers.AutoProcessor if sees else transformers.AutoTokenizer
    what = "processor" if sees else "tokenizer"
    try:
        found = wanted.from_pretrained(**place, trust_remote_code=request.trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as wrong:
        if not request.random_weights:
            raise LLMInvalidRequestError(
                f"model_path {request.model_path!r} has no {what} that can be loaded: "
                f"{_first_line(wrong)}",
                param="model_path",
            ) from wrong
        notes.append(f"There is no {what}: tokens and pixels are made up, in the same numbers.")
        return None, None
    if not sees:
        return None, found
    return found, getattr(found, "tokenizer", None)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
