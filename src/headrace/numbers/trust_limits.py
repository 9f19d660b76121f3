"""From where on something speaks against a load test's figures, and why there."""

from __future__ import annotations

LAG_MS = 1.0
LAG_SHARE = 0.05
LAG_LEAST_MS = 0.1
"""A schedule lag is in every figure from the intended time. Up to 5% of the median time to first
token it stays within the 5% to which we hold ourselves; 1 ms is what a good sender on a free core
keeps (0.2 ms at p99 is usual), so more shows one that is pressed, even where the server is slow.
Below 0.1 ms nobody can send on time, and the clock itself is part of it."""

LAG_BAD_MS = 10.0
LAG_BAD_SHARE = 0.25
"""From here on the figures are wrong by a quarter, or the arrivals are not those that were asked
for: 10 ms is the gap of 100 requests a second. Never below ten times the least limit."""

STALL_MS = 20.0
"""One late request does not move p99, but it is the maximum. Told where it is more than the median
time to first token too, for then it stands out among the server's own."""

READ_LAG_MS = 5.0
READ_LAG_BAD_MS = 50.0
"""With the kernel's times a late read changes no figure of its own request, as long as the kernel
keeps apart what comes meanwhile (see ``FIRST_TOGETHER``). It shows how long the loop is busy, and so how late the next request is written: past 5 ms that shows, past 50 ms the
sender is overloaded (half of a usual gap between tokens, many times over)."""

COALESCED = 0.05
COALESCED_BAD = 0.25
"""Pieces that come in one read have gaps of zero and make the next gap longer. Up to 5% the p95 of
the gaps is still right. With the kernel's times several pieces in one read came together on the
wire, so it is the server's or the network's doing and never makes a run INVALID."""

FIRST_TOGETHER = 0.01
"""A piece that waits keeps its own instant until the kernel puts the next one to it. Then both have
the later one's. Linux does that once the first was acknowledged: on one machine 40 ms later as a
rule, between two machines often at once. So a first token that has the instant of the next is told a
gap late or more, the kernel's times or not; above 1% of the requests that is in the p99."""

CPU = 0.7
CPU_READ = 0.5
CPU_BAD = 0.9
"""What waits for a processor that is busy for the share r waits r / (2 (1 - r)) times its work (a
queue with one server and equal work): 1.2 times at 0.7, 4.5 times at 0.9, and without end at 1.
Without the kernel's times that waiting is in the figures, so half is enough for a doubt."""

WAIT = 0.05
WAIT_BAD = 0.25
"""For so much of the time the sender was ready and had no core. What comes then is read late, and
what is due then is sent late; above 1% of the time that can be in a p99, and 5% is what short waits
behind the kernel's own work stay below. Without the kernel's times a quarter makes it INVALID. With
them the sender's own figures hold as far as its lags say, but whoever else runs on this machine, the
server maybe, waits too, and that nobody can tell from its slowness."""

STEAL = 0.01
STEAL_BAD = 0.1
"""A hypervisor takes a core for milliseconds at a time, the kernel's stamps stand still with it, and
no clock inside sees it: what is stolen for 1% of the time can be in every p99. At 10% it is in p90."""

LOST = 0.01
"""Each lost connection puts the set-up of a new one (a round trip, more with TLS) into a request;
above 1% of the requests that is in the p99."""

MISSING = 0.01
"""Requests that were cut or never sent are the slow ones. Where they are more than 1%, the true p99
is above every latency that was measured."""

MEMORY = 0.5
"""A process that takes half of the machine's memory may be swapped out while it measures."""
