"""What a run remembers does not grow with its rows."""

from __future__ import annotations

import os

from headrace.chains.aside import Aside
from headrace.chains.journal import Done
from headrace.chains.sieve import Sieve


def keys(count: int) -> list[bytes]:
    return [os.urandom(16) for _ in range(count)]


def test_a_sieve_never_loses_a_key_and_seldom_takes_a_new_one_for_an_old():
    sieve, old = Sieve(), keys(50_000)
    assert not any(map(sieve.may_have, old))
    for key in old:
        sieve.add(key)
    assert all(map(sieve.may_have, old))
    assert sum(map(sieve.may_have, keys(10_000))) < 20


def test_failures_are_remembered_whether_in_memory_or_in_a_file():
    aside, old = Aside(), keys(3000)
    for key in old:
        aside.put(key, Done(b'["E","' + key.hex().encode() + b'"]', failed=True, passing=True))
    for key in old:
        found = aside.get(key)
        assert found is not None
        assert (found.failed, found.passing, key.hex().encode() in found.value) == (True,) * 3
    assert aside.get(os.urandom(16)) is None
    aside.close()
    assert aside.get(old[0]) is None
    assert aside.get(old[-1]) is None
