"""What a run knows of its batches, whatever moment it ended at."""

from __future__ import annotations

from pathlib import Path

from headrace.chains.batch_store import BatchStore, Begun


def intended(store: BatchStore, *, requests: int = 100, size: int = 10_000) -> Begun:
    return store.intend("s", "mark", 1.0, requests=requests, size=size, around=10)


def keys(store: BatchStore, begun: Begun) -> list[str | None]:
    return [item.custom_id for item in store.items(begun.number)]


def filled(folder: Path, count: int = 10) -> BatchStore:
    store = BatchStore(folder)
    for number in range(count):
        store.add(f"k{number}", "s", b"x" * 90)
    store.add("other", "t", b"y")
    return store


def test_a_batch_holds_no_more_requests_than_it_may(tmp_path):
    with filled(tmp_path) as store:
        sizes = []
        while store.waits("s"):
            begun = intended(store, requests=4)
            assert begun.total == len(keys(store, begun))
            sizes.append(begun.total)
    assert sizes == [4, 4, 2]


def test_nor_more_bytes_and_one_at_least(tmp_path):
    with filled(tmp_path, 3) as store:
        assert keys(store, intended(store, size=200)) == ["k0", "k1"]
        assert keys(store, intended(store, size=1)) == ["k2"]


def test_what_was_collected_and_not_handed_in_is_collected_again(tmp_path):
    with filled(tmp_path) as store:
        begun = intended(store, requests=4)
        store.begun(begun.number, "b", 2.0)
    with BatchStore(tmp_path) as store:
        assert store.find("k9") is None
        assert store.find("k3") is not None
        (found,) = store.open_ones()
        assert (found.batch_id, found.total, found.created) == ("b", 4, 2.0)
        assert keys(store, found) == ["k0", "k1", "k2", "k3"]


def test_an_equal_request_is_held_once(tmp_path):
    with BatchStore(tmp_path) as store:
        store.add("k", "s", b"x")
        store.add("k", "s", b"x")
        assert intended(store).total == 1


def test_results_count_when_the_batch_is_over(tmp_path):
    with filled(tmp_path, 2) as store:
        begun = intended(store)
        store.take(begun.number, [("k1", b"result"), ("stranger", b"other")])
        found = store.find("k1")
        assert found is not None
        assert not found.is_over
        store.end(begun.number, "expired")
        kept = [store.find("k0"), store.find("k1")]
        assert [each and each.result for each in kept] == [None, b"result"]
        assert [each and each.phase for each in kept] == ["expired", "expired"]
        assert store.open_ones() == []
        assert store.find("stranger") is None


def test_a_batch_that_came_to_nothing_leaves_no_request_behind(tmp_path):
    with filled(tmp_path, 2) as store:
        begun = intended(store)
        store.undo(begun.number)
        assert store.find("k0") is None
        assert store.open_ones() == []


def test_what_is_asked_again_is_in_one_more_batch(tmp_path):
    with filled(tmp_path, 2) as store:
        first = intended(store)
        store.end(first.number, "completed")
        store.again(["k1"])
        second = intended(store)
        assert keys(store, second) == ["k1"]
        found = store.find("k1")
        assert found is not None
        assert found.batches == 2
