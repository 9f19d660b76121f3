"""From an input to the tensors that a model takes: by its own processor, or made up."""

from __future__ import annotations

from typing import Any

from headrace.bench.profile import needs
from headrace.bench.profile.brought import handed_over, side_of
from headrace.bench.profile.inputs import Given, read_picture
from headrace.bench.profile.loading import DTYPES, Loaded
from headrace.contracts.errors import LLMCapabilityError

_SEVERAL = frozenset({"idefics2", "idefics3", "smolvlm"})
"""They take several pictures a sequence, along an axis of its own."""


def prepare(loaded: Loaded, given: Given) -> dict[str, Any]:
    """The model's keyword arguments for its first pass, on its device and in its dtype."""
    torch = needs.torch()
    kind = getattr(torch, DTYPES[loaded.dtype])

    def moved_there(tensor: Any) -> Any:
        return tensor.to(loaded.device, kind if tensor.is_floating_point() else None)

    if loaded.infers:
        from torch.utils._pytree import tree_map_only

        return dict(tree_map_only(torch.Tensor, moved_there, _by_its_own_code(loaded, given)))
    if given.picture is not None:
        found = _with_picture(loaded, given)
    else:
        found = {"input_ids": _tokens(loaded, given.text)}
    moved = {
        name: moved_there(value) for name, value in found.items() if isinstance(value, torch.Tensor)
    }
    mask = found.get("attention_mask")
    # One sequence without padding needs no mask, and a mask may cost a slower kernel.
    if mask is not None and bool(mask.all()):
        del moved["attention_mask"]
    return moved


def _by_its_own_code(loaded: Loaded, given: Given) -> dict[str, Any]:
    return handed_over(
        loaded.model,
        loaded.tokenizer,
        given,
        name=loaded.name,
        device=loaded.device,
        side=side_of(loaded.config),
    )


def _tokens(loaded: Loaded, text: str) -> Any:
    torch = needs.torch()
    tokenizer = loaded.tokenizer
    if tokenizer is None:
        vocabulary = _vocabulary(loaded)
        return torch.tensor([[(byte * 31 + 7) % vocabulary for byte in text.encode()]])
    if getattr(tokenizer, "chat_template", None):
        turn = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        return tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    return tokenizer(text, return_tensors="pt")["input_ids"]


def _with_picture(loaded: Loaded, given: Given) -> dict[str, Any]:
    assert given.picture is not None
    picture = read_picture(given.picture)
    processor = loaded.processor
    if processor is None:
        return _made_up(loaded, given, picture)
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": given.text}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
    else:
        mark = getattr(processor, "image_token", None) or "<image>"
        text = given.text if mark in given.text else f"{mark}\n{given.text}"
    return dict(processor(text=text, images=[picture], return_tensors="pt"))


def _made_up(loaded: Loaded, given: Given, picture: Any) -> dict[str, Any]:
    """For a shape without a processor: the picture at the model's size, its places, and the text."""
    torch = needs.torch()
    config = loaded.model.config
    mark = getattr(config, "image_token_id", getattr(config, "image_token_index", None))
    side = getattr(getattr(config, "vision_config", None), "image_size", None)
    places = getattr(config, "image_seq_length", None)
    patch = getattr(getattr(config, "vision_config", None), "patch_size", None)
    if isinstance(side, int) and isinstance(patch, int):
        # Idefics and SmolVLM put so many patches by so many into one place.
        places = (side // patch // int(getattr(config, "scale_factor", 1))) ** 2
    if not isinstance(mark, int) or not isinstance(side, int) or not isinstance(places, int):
        raise LLMCapabilityError(
            f"{loaded.name} has no processor, and its configuration does not tell how a picture is "
            "put to it (image_token_id, vision_config.image_size and patch_size)"
        )
    vocabulary = _vocabulary(loaded)
    text = [
        each if each != mark else 0
        for each in ((b * 31 + 7) % vocabulary for b in given.text.encode())
    ]
    pixels = torch.frombuffer(bytearray(picture.resize((side, side)).tobytes()), dtype=torch.uint8)
    pixels = pixels.view(1, side, side, 3).permute(0, 3, 1, 2).float() / 127.5 - 1
    if config.model_type in _SEVERAL:
        pixels = pixels.unsqueeze(1)
    return {"input_ids": torch.tensor([[mark] * places + text]), "pixel_values": pixels}


def _vocabulary(loaded: Loaded) -> int:
    return int(loaded.model.get_input_embeddings().num_embeddings)
