"""The promises of a store of responses, whatever keeps them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.net.manual_clock import ManualClock
from headrace.stores.responses import MemoryResponses, StoredResponse


def response(name: str, size: int = 10, **fields) -> StoredResponse:
    body = b"x" * max(0, size - len(name))
    return StoredResponse(response_id=name, body=body, input_items=b"", **fields)


def store(clock=None, *, max_count=10, max_bytes=1000, ttl_s=60.0) -> MemoryResponses:
    return MemoryResponses(
        clock or ManualClock(), max_count=max_count, max_bytes=max_bytes, ttl_s=ttl_s
    )


def run(scene):
    return asyncio.run(scene())


def test_what_was_put_is_there_and_what_was_deleted_is_not():
    async def scene():
        kept = store()
        await kept.put("ann", response("a", item_ids=("m",)))
        assert (await kept.get("ann", "a")).response_id == "a"
        assert (await kept.with_item("ann", "m")).response_id == "a"
        assert await kept.delete("ann", "a")
        assert not await kept.delete("ann", "a")
        assert await kept.get("ann", "a") is None
        assert await kept.with_item("ann", "m") is None
        assert (len(kept), kept.size) == (0, 0)

    run(scene)


def test_owners_do_not_see_one_another():
    async def scene():
        kept = store()
        await kept.put("ann", response("a", item_ids=("m",)))
        assert await kept.get("bob", "a") is None
        assert await kept.with_item("bob", "m") is None
        assert not await kept.delete("bob", "a")
        await kept.put("bob", response("a", 20))
        assert (await kept.get("ann", "a")).size != (await kept.get("bob", "a")).size

    run(scene)


def test_a_newer_state_takes_the_olders_place():
    async def scene():
        kept = store()
        await kept.put("ann", response("a", 10, item_ids=("m",)))
        await kept.put("ann", response("a", 30))
        assert (len(kept), kept.size) == (1, 30)
        assert await kept.with_item("ann", "m") is None

    run(scene)


def test_the_one_used_longest_ago_makes_room():
    async def scene():
        kept = store(max_count=2)
        await kept.put("ann", response("a"))
        await kept.put("ann", response("b"))
        await kept.get("ann", "a")
        await kept.put("ann", response("c"))
        found = [await kept.get("ann", name) is not None for name in "abc"]
        assert found == [True, False, True]

    run(scene)


def test_one_that_is_too_large_is_not_kept_and_drives_nobody_out():
    async def scene():
        kept = store(max_bytes=100)
        await kept.put("ann", response("a", 60))
        await kept.put("ann", response("b", 101))
        assert await kept.get("ann", "b") is None
        assert await kept.get("ann", "a") is not None

    run(scene)


def test_what_nobody_asks_for_is_forgotten_in_time():
    async def scene():
        clock = ManualClock()
        kept = store(clock, ttl_s=10)
        await kept.put("ann", response("a"))
        await kept.put("ann", response("b"))
        await clock.advance(6)
        assert await kept.get("ann", "a") is not None
        await clock.advance(6)
        assert await kept.get("ann", "b") is None
        assert await kept.get("ann", "a") is not None
        assert kept.size == 10

    run(scene)


@pytest.mark.parametrize("limits", [{"max_count": 0}, {"max_bytes": 0}])
def test_a_store_without_room_keeps_nothing(limits):
    async def scene():
        kept = store(**limits)
        await kept.put("ann", response("a"))
        assert await kept.get("ann", "a") is None

    run(scene)


steps = st.lists(
    st.tuples(
        st.sampled_from(["put", "get", "delete", "wait"]),
        st.sampled_from("xy"),
        st.sampled_from("abcdef"),
        st.integers(1, 40),
    ),
    max_size=40,
)


@given(steps=steps)
def test_the_bounds_hold_whatever_happens(steps):
    async def scene():
        clock = ManualClock()
        kept = store(clock, max_count=4, max_bytes=100, ttl_s=50)
        for step, owner, name, number in steps:
            if step == "put":
                await kept.put(owner, response(name, number, item_ids=(f"i{name}",)))
            elif step == "get":
                found = await kept.get(owner, name)
                by_item = await kept.with_item(owner, f"i{name}")
                assert found == by_item
            elif step == "delete":
                await kept.delete(owner, name)
                assert await kept.get(owner, name) is None
            else:
                await clock.advance(number)
            assert len(kept) <= 4
            assert 0 <= kept.size <= 100
            assert (kept.size == 0) is (len(kept) == 0)

    run(scene)
