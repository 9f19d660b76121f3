"""The endpoints of one client that have a name of their own, whatever answers there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from attrs import evolve, frozen

from headrace.backends.row import Provider
from headrace.contracts.capabilities import BackendCapabilities
from headrace.contracts.errors import LLMInvalidRequestError

if TYPE_CHECKING:
    from headrace.client.opening import Endpoint


@frozen(kw_only=True, eq=False)
class Named:
    """One of them: ``model`` is asked there where a call names none behind the endpoint's name.

    ``capabilities`` are the backend's own, where our data knows nothing of it.
    """

    name: str
    endpoint: Endpoint
    model: str | None = None
    capabilities: BackendCapabilities | None = None


class NamedEndpoints:
    """They are found by the first part of a model's name, before any provider is.

    Each has a provider's row of its own, equal to that of others of the same provider, by which it
    is known from then on: a call that has found its endpoint keeps to it, whatever that is
    exchanged for.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, Named] = {}
        self._by_row: dict[int, Named] = {}

    def __iter__(self) -> Iterator[Named]:
        return iter(tuple(self._by_name.values()))

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def find(self, model: str | None) -> tuple[Provider, str] | None:
        """The row of the endpoint that ``model`` names, and the model to be asked there."""
        if not model or not self._by_name:
            return None
        named, own = self._by_name.get(model), ""
        if named is None:
            name, _, own = model.partition("/")
            named = self._by_name.get(name)
            if named is None:
                return None
        asked = own or named.model
        if not asked:
            raise LLMInvalidRequestError(
                f"endpoint {named.name!r} has no model of its own: name one as "
                f"'{named.name}/<model>'",
                param="model",
            )
        return named.endpoint.row, asked

    def of_row(self, row: Provider) -> Named | None:
        """The endpoint whose row this very object is."""
        return self._by_row.get(id(row)) if self._by_row else None

    def get(self, name: str) -> Named | None:
        """The endpoint of that name."""
        return self._by_name.get(name)

    def put(self, named: Named) -> None:
        """Have it found by its name from now on, in the place of another one."""
        self.pop(named.name)
        self._by_name[named.name] = named
        self._by_row[id(named.endpoint.row)] = named

    def pop(self, name: str) -> Named | None:
        """Have it found no more."""
        named = self._by_name.pop(name, None)
        if named is not None:
            del self._by_row[id(named.endpoint.row)]
        return named


def own_row(row: Provider) -> Provider:
    """Equal to ``row``, and not the same."""
    return evolve(row)
