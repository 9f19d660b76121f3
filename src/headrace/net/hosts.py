"""Whether a host lies within a private network: where we fetch only what was configured.

Pure: no name is looked up. A public name may still lead to a private address, so whoever fetches
what a stranger named must ask again about the address that it connects to.
"""

from __future__ import annotations

import ipaddress
import socket

# RFC 6761, 6762, 8375, 9476 and what clouds and homes use beside them.
_PRIVATE_SUFFIXES = ("localhost", "local", "internal", "intranet", "lan", "home.arpa", "home")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def is_private_host(host: str) -> bool:
    """Whether ``host``, a name or an address, is anything but a public one.

    Loopback, private, link-local (the clouds' metadata services among them), shared, multicast and
    reserved addresses are private, in every notation that connecting would understand; so are
    names without a dot and those under suffixes that no public registry gives out.
    """
    name = host.strip().strip("[]").rstrip(".").lower().partition("%")[0]
    if not name:
        return True
    address = address_of(name)
    if address is not None:
        return _is_private(address)
    return "." not in name or name.endswith(tuple("." + suffix for suffix in _PRIVATE_SUFFIXES))


def is_loopback_host(host: str) -> bool:
    """Whether ``host`` is this machine itself, by its usual names or by any notation of its
    addresses."""
    name = host.strip().strip("[]").rstrip(".").lower().partition("%")[0]
    address = address_of(name)
    if address is None:
        return name == "localhost" or name.endswith(".localhost")
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = inner or address
    # To connect to "any address" is to connect to this machine.
    return address.is_loopback or address.is_unspecified


def address_of(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that ``name`` is, in any notation that connecting would understand."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        # 127.1, 0x7f000001 and 2130706433 are addresses to connect(), too.
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except (OSError, UnicodeEncodeError):
        return None


def _is_private(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_private(inner)
    return not address.is_global or address.is_multicast
