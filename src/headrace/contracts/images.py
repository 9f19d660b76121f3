"""Pictures that are made of words, and judgements of words and pictures."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import field, frozen

from headrace.contracts.messages import ContentPart
from headrace.contracts.responses import Usage


@frozen(kw_only=True)
class ImageRequest:
    """Pictures to be made of ``prompt``: ``n`` of them, of a ``size`` as in ``1024x1024``.

    ``provider_options`` go into the provider's body as they are. The other fields mean what they mean
    in LLMRequest.
    """

    prompt: str
    model: str | None = None
    n: int | None = None
    size: str | None = None
    quality: str | None = None
    provider_options: dict[str, object] = field(factory=dict)
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class GeneratedImage:
    """A picture: the file itself, or where it lies for a while; ``revised_prompt`` is what was drawn."""

    data: bytes | None = field(default=None, repr=False)
    url: str | None = None
    revised_prompt: str | None = None


@frozen(kw_only=True)
class ImageResult:
    """The pictures that were made."""

    images: tuple[GeneratedImage, ...]
    usage: Usage | None = None


@frozen(kw_only=True)
class ModerationRequest:
    """Texts to be judged, one by one; or the parts of one message, together.

    The other fields mean what they mean in LLMRequest.
    """

    inputs: tuple[str | ContentPart, ...]
    model: str | None = None
    provider_options: dict[str, object] = field(factory=dict)
    metadata: dict[str, object] = field(factory=dict, repr=False)
    request_id: str | None = None


@frozen(kw_only=True)
class Judgement:
    """What is said of one text or message: which categories it falls into, and how surely."""

    flagged: bool
    categories: Mapping[str, bool] = field(factory=dict)
    scores: Mapping[str, float] = field(factory=dict)


@frozen(kw_only=True)
class ModerationResult:
    """One judgement for each text, in their order."""

    judgements: tuple[Judgement, ...]
    model_id: str | None = None
