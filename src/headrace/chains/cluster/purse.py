"""What a run on a cluster may still spend, handed to its workers in shares."""

from __future__ import annotations

from decimal import Decimal

_SHARES_A_WORKER = 2


class Purse:
    """``left`` US dollars for ``workers``. No share is given twice, so all together spend no more."""

    def __init__(self, left: Decimal, workers: int) -> None:
        self._left, self._shares = max(left, Decimal(0)), _SHARES_A_WORKER * workers

    def take(self, fruitless: Decimal | None) -> Decimal | None:
        """A share, which is nothing where nothing is left: what is done already costs nothing.

        ``fruitless`` is one that the worker had before and that paid for no request; None where there
        is no larger one.
        """
        least = Decimal(0) if fruitless is None else 2 * fruitless
        share = min(self._left, max(self._left / self._shares, least))
        if fruitless is not None and share <= fruitless:
            return None
        self._left -= share
        return share

    def give_back(self, rest: Decimal) -> None:
        """What was not spent of a share."""
        self._left += rest
