"""Documents put in order by how alike their vectors are to the query's: for those who ask for it.

It is no reranker: a model made for ranking reads query and document together, this compares what each
means alone. So it is never used unless the configuration says so by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from headrace.backends.local.embedder import LocalEmbedder
from headrace.contracts.errors import LLMCapabilityError
from headrace.contracts.ranking import RerankRequest, RerankResult
from headrace.contracts.record import Marks
from headrace.contracts.requests import EmbeddingRequest
from headrace.contracts.responses import Usage
from headrace.numbers.ranking import cosine, ranked
from headrace.numbers.usage import add_usages

_AT_ONCE = 32


class SimilarityRanker(LocalEmbedder):
    """A LocalEmbedder that ranks too; scores are cosines, from -1 to 1."""

    async def rerank(self, request: RerankRequest, marks: Marks) -> RerankResult:
        """The documents, the most like the query first."""
        for name in ("raw_scores", "max_tokens_per_document"):
            if getattr(request, name) not in (None, False):
                raise LLMCapabilityError(
                    f"{self.name} ranks by the likeness of vectors, which has no {name!r}; leave it "
                    "out, or ask a model made for ranking",
                    param=name,
                )
        options = {"truncate": request.truncate, **request.provider_options}
        texts = (request.query, *request.documents)
        vectors: list[Sequence[float]] = []
        used: list[Usage] = []
        for begin in range(0, len(texts), _AT_ONCE):
            some = EmbeddingRequest(
                inputs=texts[begin : begin + _AT_ONCE],
                provider_options={k: v for k, v in options.items() if v is not None},
            )
            result = await self.embed(some, marks)
            vectors += result.vectors
            used.append(result.usage or Usage())
        one, *others = vectors
        scores = [cosine(one, other) for other in others]
        return RerankResult(
            results=ranked(scores, request.top_n),
            model_id=self.name,
            usage=evolve(add_usages(used), completion_tokens=None),
        )
