"""Documents put in order for a query, and texts put in classes: what is asked, and what is answered."""

from __future__ import annotations

from attrs import field, frozen

from headrace.contracts.responses import Usage


@frozen(kw_only=True)
class RerankRequest:
    """Documents to be put in order by how much they have to do with ``query``.

    ``top_n`` bounds how many come back, ``return_documents`` asks for their texts too.
    ``max_tokens_per_document`` is how much of a document is read at most; with ``truncate`` one that
    is too long for the model is cut, without it such a request fails. ``raw_scores`` asks for what
    the model itself says, which may be any number, in place of a score from 0 to 1. ``None`` leaves
    each to the backend. The other fields mean what they mean in LLMRequest.
    """

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    top_n: int | None = None
    return_documents: bool = False
    max_tokens_per_document: int | None = None
    truncate: bool | None = None
    raw_scores: bool | None = None
    metadata: dict[str, object] = field(factory=dict, repr=False)
    provider_options: dict[str, object] = field(factory=dict)
    request_id: str | None = None


@frozen(kw_only=True)
class RankedDocument:
    """A document's place in the request, from 0, and how much it has to do with the query."""

    index: int
    relevance_score: float
    document: str | None = None


@frozen(kw_only=True)
class RerankResult:
    """The documents, the most relevant first; ``document`` of each is set where it was asked for.

    ``search_units`` are what a provider bills in place of tokens. ``dropped`` lists settings of the
    request that the backend could not be given.
    """

    results: tuple[RankedDocument, ...]
    model_id: str | None = None
    usage: Usage | None = None
    search_units: float | None = None
    response_id: str | None = None
    dropped: tuple[str, ...] = ()


@frozen(kw_only=True)
class ClassificationRequest:
    """Texts to be put in classes; a pair of texts is classed as one (as in: does b follow from a?).

    ``raw_scores`` and ``truncate`` are as in RerankRequest.
    """

    inputs: tuple[str | tuple[str, str], ...]
    model: str | None = None
    truncate: bool | None = None
    raw_scores: bool | None = None
    metadata: dict[str, object] = field(factory=dict, repr=False)
    provider_options: dict[str, object] = field(factory=dict)
    request_id: str | None = None


@frozen(kw_only=True)
class LabelScore:
    """A class and how far a text is in it."""

    label: str
    score: float


@frozen(kw_only=True)
class ClassificationResult:
    """The classes of each input, in input order, each the likeliest class first."""

    labels: tuple[tuple[LabelScore, ...], ...]
    model_id: str | None = None
    usage: Usage | None = None
    dropped: tuple[str, ...] = ()
