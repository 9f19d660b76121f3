"""Which hosts are taken for private ones."""

from __future__ import annotations

import pytest

from headrace.net.hosts import is_private_host


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST.", "api.localhost", "printer", "nas.local", "db.internal"),
        *("metadata.google.internal", "router.home.arpa", "", " ", "[::1]", "::1", "::"),
        *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "0"),
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "224.0.0.1"),
        *("255.255.255.255", "192.0.2.1", "fe80::1%eth0", "fc00::1", "ff02::1"),
        *("::ffff:10.0.0.1", "[::ffff:7f00:1]", "64:ff9b::a00:1", "2002:7f00:1::"),
    ],
)
def test_what_is_not_public_is_private(host):
    assert is_private_host(host)


@pytest.mark.parametrize(
    "host",
    [
        *("api.openai.com", "example.com.", "8.8.8.8", "2001:4860:4860::8888"),
        *("[2606:4700::1111]", "::ffff:8.8.8.8", "64:ff9b::808:808", "localhost.example.com"),
        *("mylocal.com", "172.32.0.1"),
    ],
)
def test_what_is_public_is_not(host):
    assert not is_private_host(host)
