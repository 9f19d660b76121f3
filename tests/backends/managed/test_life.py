"""When an engine's server runs, where the order of what happens cannot be left to real processes."""

from __future__ import annotations

import asyncio

from headrace.backends.managed.life import Life
from headrace.backends.managed.server import Serving
from headrace.backends.providers import provider
from headrace.backends.remote import Remote
from headrace.contracts.errors import LLMUnavailableError
from headrace.net.clock import SystemClock, World


class Theirs:
    """A server that somebody else runs: each start finds it, nothing ends it."""

    def __init__(self):
        self.starts = 0

    async def start(self):
        self.starts += 1
        return Serving(base_url=f"http://127.0.0.1:{self.starts}/v1", model="m")

    async def leave(self):
        pass


class Silent:
    """A network whose requests wait until each is told that nobody is there."""

    def __init__(self):
        self.asked = []

    async def send(self, request, limits):
        told = asyncio.get_running_loop().create_future()
        self.asked.append(told)
        await told
        raise LLMUnavailableError("nobody answers")

    async def aclose(self):
        pass


def test_a_late_look_at_a_server_that_is_gone_forgets_nothing_of_the_next_one():
    network = Silent()

    def way(serving):
        world, row = World(transport=network), provider("vllm")
        return Remote(name="far", provider=row, base_url=serving.base_url, world=world)

    async def play():
        life = Life("far", Theirs(), way, SystemClock(), lazy=True, idle_s=None)
        gone = await life.ready()
        looks = [asyncio.create_task(life.is_gone(gone)) for _ in range(2)]
        while len(network.asked) < 2:
            await asyncio.sleep(0)
        network.asked[0].set_result(None)
        assert await looks[0]
        following = await life.ready()
        assert following is not gone
        network.asked[1].set_result(None)
        assert await looks[1]
        assert life.remote is following
        assert life.serving.base_url == following.base_url
        await life.close()

    asyncio.run(asyncio.wait_for(play(), 30.0))
