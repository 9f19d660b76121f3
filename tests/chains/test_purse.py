"""What workers of a run may spend together is never more than the run may."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from headrace.chains.cluster.purse import Purse

amounts = st.decimals(0, 100, places=4)


@given(left=amounts, workers=st.integers(1, 8), used=st.lists(st.integers(0, 100), max_size=40))
def test_shares_that_are_out_and_what_was_spent_are_never_more_than_there_was(left, workers, used):
    purse, spent, fruitless = Purse(left, workers), Decimal(0), None
    for percent in used:
        share = purse.take(fruitless)
        if share is None:
            fruitless = None
            continue
        assert spent + share <= left
        paid = share * percent / 100
        spent += paid
        purse.give_back(share - paid)
        fruitless = share if not paid else None


def test_a_worker_that_can_pay_no_request_gets_more_until_there_is_no_more():
    purse = Purse(Decimal(8), workers=2)
    assert purse.take(None) == 2
    purse.give_back(Decimal(2))
    assert purse.take(Decimal(2)) == 4
    purse.give_back(Decimal(4))
    assert purse.take(Decimal(4)) == 8
    purse.give_back(Decimal(8))
    assert purse.take(Decimal(8)) is None


def test_where_nothing_is_left_what_is_done_already_may_be_gone_through():
    purse = Purse(Decimal(-1), workers=2)
    assert purse.take(None) == 0
    assert purse.take(Decimal(0)) is None
