"""Ports that programs get which take them only later."""

from __future__ import annotations

import socket

import pytest

from headrace.backends.managed.ports import HeldPort

HOST = "127.0.0.1"


def test_a_free_port_that_was_given_is_not_given_again_though_nobody_has_taken_it_yet():
    given = []
    for _ in range(250):
        with HeldPort(HOST) as held:
            given.append(held.number)
    assert len(set(given)) == len(given)


def test_a_port_is_nobody_elses_while_it_is_held_and_anybodys_after():
    with (
        HeldPort(HOST) as held,
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind((HOST, held.number))
    with HeldPort(HOST, held.number) as again:
        assert again.number == held.number
