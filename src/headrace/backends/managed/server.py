"""An engine's server process: started or joined, waited for until it answers, left or ended.

It belongs to all processes of ours that use it: whoever comes first starts it, whoever leaves last
ends it. Where one that has it was killed, the next of ours that starts an engine ends it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve, frozen

from headrace.backends.managed import processes
from headrace.backends.managed.ending import end_orphans, end_started
from headrace.backends.managed.launch import Adapter, Launch
from headrace.backends.managed.logs import names_secret, shorten, tail, without_secrets
from headrace.backends.managed.ports import HeldPort
from headrace.backends.managed.probe import answers, probe
from headrace.backends.managed.state import (
    Started,
    folder_of,
    folders,
    new_user,
    place,
)
from headrace.contracts.engines import EngineConfig
from headrace.contracts.errors import LLMError, LLMInvalidRequestError, LLMUnavailableError
from headrace.net.clock import World
from headrace.stores.secret import Secret

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
MARK = "_HEADRACE_ENGINE"
"""The variable in a process's environment by which what it leaves behind is known."""

_LOOK_FIRST_S, _LOOK_MOST_S = 0.03, 0.5
_LOG_LOOK_S = 60.0
_SPAWNS = 2
_TAKEN = ("address already in use", "address in use", "errno 98", "errno 48", "couldn't bind")


@frozen(kw_only=True)
class Serving:
    """A server that answers; without ``started`` it is somebody else's. ``model`` is its name there."""

    base_url: str
    model: str
    started: Started | None = None


class PortLostError(LLMUnavailableError):
    """Somebody else has the port, who took it between our letting it go and the program's start."""


class Server:
    """One user's hold on the server of ``config``."""

    def __init__(
        self,
        config: EngineConfig,
        adapter: Adapter,
        world: World,
        *,
        key: Secret | None = None,
        state: Path | None = None,
    ) -> None:
        self.started: Started | None = None
        """The process, from its start until it is left."""
        self._config, self._adapter, self._world, self._key = config, adapter, world, key
        self._state = state
        self._own_folder = self._folder = folder_of(config, state)
        self._user = new_user()
        self._told: set[str] = set()

    async def start(self) -> Serving:
        """Have it run, and wait until it answers.

        Raises LLMUnavailableError with the end of its log, and LLMInvalidRequestError where its
        port or its endpoint serves another model, or the program cannot be started so.
        """
        if self._config.endpoint is not None:
            return await self._at_endpoint(self._config.endpoint)
        await end_orphans(self._state)
        for attempt in range(1, _SPAWNS + 1):
            self._folder = self._own_folder
            async with self._folder.alone():
                found = await self._joined_or_spawned()
            if isinstance(found, Serving):
                return found
            self.started = found
            try:
                return await self._answering(found)
            except PortLostError:
                await self.leave()
                if attempt == _SPAWNS or self._config.port is not None:
                    raise
            except BaseException:
                await asyncio.shield(self.leave())
                raise
        raise AssertionError("the last attempt returns or raises")

    async def ended(self) -> int | None:
        """Wait until the process has ended by itself; its exit status, where we are its parent.

        Meanwhile its log is kept from growing without end.
        """
        assert self.started is not None
        output = Path(self.started.log)
        end = asyncio.create_task(processes.ended(self.started.pid, self.started.born))
        try:
            while not end.done():
                await asyncio.wait({end}, timeout=_LOG_LOOK_S)
                await asyncio.to_thread(shorten, output)
            return end.result()
        finally:
            end.cancel()

    async def leave(self) -> None:
        """Use it no more; it ends where nobody else does, and that is waited for."""
        mine = self.started
        if mine is None:
            return
        async with self._folder.alone():
            now = self._folder.read()
            # Else another has been started since this one ended.
            if now is not None and (now.pid, now.born) == (mine.pid, mine.born):
                left = now.without_user(self._user)
                if left.runs_for_somebody:
                    self._folder.write(left)
                else:
                    # We have held it until now, so its id is nobody else's yet.
                    await end_started(self._folder, left, is_known=True)
        self.started = None

    async def keep(self) -> None:
        """Let it run on when nobody uses it, until it is told to stop."""
        async with self._folder.alone():
            now = self._folder.read()
            if now is not None and self.started is not None and now.pid == self.started.pid:
                self._folder.write(evolve(now, kept=True))

    def tail(self) -> str:
        """The end of what the process said."""
        return "" if self.started is None else tail(Path(self.started.log), self._secrets())

    async def _at_endpoint(self, endpoint: str) -> Serving:
        config = self._config
        found = await probe(endpoint, self._world.transport, self._key)
        if found is None:
            raise LLMUnavailableError(
                f"engine {config.name!r}: nobody answers at its endpoint {endpoint}; start a server "
                "there, or leave endpoint out to have one started"
            )
        served = found.serves(self._adapter.served_names(config))
        if served is None:
            raise self._wrong(f"its endpoint {endpoint}", found.told(), "endpoint")
        return Serving(base_url=endpoint.rstrip("/"), model=served)

    def _wrong(self, where: str, what: str, param: str) -> LLMInvalidRequestError:
        return LLMInvalidRequestError(
            f"engine {self._config.name!r}: {where} has {what}, not {self._config.model!r}; choose "
            f"another {param}, or leave it out to have a server started on a free port",
            param=param,
        )

    async def _joined_or_spawned(self) -> Serving | Started:
        """What runs for us, from now on also ours; to be called alone in the folder."""
        now = self._folder.read()
        if now is not None:
            if now.runs_for_somebody:
                joined = now.with_user(self._user)
                self._folder.write(joined)
                return joined
            await end_started(self._folder, now, is_orphan=True)
        wanted = self._config.port or self._adapter.default_port
        try:
            held = HeldPort(HOST, wanted or 0)
        except OSError:
            there = await self._on_taken(wanted or 0)
            if there is not None:
                return there
            held = HeldPort(HOST)
        with held:
            launch = await asyncio.to_thread(self._adapter.launch, self._config, HOST, held.number)
            for note in launch.notes:
                if note not in self._told:
                    log.warning("engine %s: %s", self._config.name, note)
                    self._told.add(note)
            return self._spawn(launch, held)

    async def _on_taken(self, port: int) -> Serving | Started | None:
        """The server at a port that is taken, where it has the model; ``None``: take another port."""
        base_url = f"http://{HOST}:{port}/v1"
        found = await probe(base_url, self._world.transport, self._key)
        served = found and found.serves(self._adapter.served_names(self._config))
        if served:
            log.info("engine %s: %s has the model already", self._config.name, base_url)
            joined = await self._joined_elsewhere(port)
            return joined or Serving(base_url=base_url, model=served)
        if self._config.port is None:
            return None
        what = "something that does not answer" if found is None else found.told()
        raise self._wrong(f"its port {port}", what, "port")

    async def _joined_elsewhere(self, port: int) -> Started | None:
        """What runs at ``port``, where it is an engine of another entry; from now on also ours."""
        for folder, there in folders(self._state):
            if there.port != port:
                continue
            # Not waited for: whoever is alone there may wait for us here.
            async with folder.alone(at_once=True) as is_ours:
                now = folder.read() if is_ours else None
                if now is not None and now.port == port and now.runs_for_somebody:
                    joined = now.with_user(self._user)
                    folder.write(joined)
                    self._folder = folder
                    return joined
        return None

    def _spawn(self, launch: Launch, held: HeldPort) -> Started:
        config, mark = self._config, secrets.token_hex(16)
        env = {**os.environ, **launch.env, MARK: mark}
        if launch.key_variable is not None and self._key is not None:
            env[launch.key_variable] = self._key.reveal()
        output = self._folder.new_log()
        held.close()
        try:
            process = processes.spawn((_found(launch, env), *launch.argv[1:]), env, output)
        except OSError as refused:
            raise LLMUnavailableError(
                f"engine {config.name!r}: {launch.argv[0]!r} cannot be started: "
                f"{refused.strerror or refused}",
                transient=False,
            ) from refused
        started = Started(
            name=config.name,
            model=config.model,
            backend=config.backend,
            pid=process.pid,
            born=process.born,
            mark=mark,
            port=held.number,
            base_url=launch.base_url,
            ready_path=launch.ready_path,
            served=launch.model,
            metrics_url=launch.metrics_url,
            command=without_secrets(launch.argv, self._secrets()),
            started=self._world.clock.wall(),
            log=str(output),
            stop_timeout_s=config.stop_timeout_s,
            place=place(),
            users=(self._user,),
        )
        self._folder.write(started)
        log.info("engine %s: started as process %d, log %s", config.name, process.pid, output)
        return started

    async def _answering(self, started: Started) -> Serving:
        """It as soon as it answers."""
        clock, limit_s = self._world.clock, self._config.startup_timeout_s
        until = clock.monotonic() + limit_s
        end = asyncio.create_task(processes.ended(started.pid, started.born))
        try:
            wait_s = _LOOK_FIRST_S
            while True:
                model = await self._model_at(started)
                if end.done():
                    raise self._did_not_start(started, f"it {how_ended(end.result())}")
                if model is not None:
                    return Serving(base_url=started.base_url, model=model, started=started)
                if clock.monotonic() > until:
                    raise self._did_not_start(started, f"it was not ready within {limit_s:g} s")
                await asyncio.wait({end}, timeout=wait_s)
                wait_s = min(1.5 * wait_s, _LOOK_MOST_S)
        finally:
            end.cancel()

    async def _model_at(self, started: Started) -> str | None:
        """The name of its model, once it answers."""
        transport = self._world.transport
        root = f"http://{HOST}:{started.port}"
        try:
            if await answers(root + started.ready_path, transport, self._key) != 200:
                return None
        except LLMError as error:
            raise self._did_not_start(
                started, f"its port answers, but not in HTTP ({error})"
            ) from error
        found = await probe(started.base_url, transport, self._key)
        if found is None:
            return None
        if found.models is None:  # not every program lists what it serves
            return started.served
        served = found.serves({started.served, *self._adapter.served_names(self._config)})
        if served is None:
            raise PortLostError(
                f"engine {self._config.name!r}: port {started.port}, where it was started, has "
                f"{found.told()}, not {self._config.model!r}; if that is its own, say so as model"
            )
        return served

    def _did_not_start(self, started: Started, why: str) -> LLMUnavailableError:
        said = tail(Path(started.log), self._secrets())
        is_port = any(word in said.lower() for word in _TAKEN)
        kind = PortLostError if is_port else LLMUnavailableError
        last = f"the end of its log ({started.log}):\n{said}" if said else "it said nothing"
        return kind(f"engine {self._config.name!r} did not start: {why}; {last}")

    def _secrets(self) -> tuple[Secret | str, ...]:
        hidden = [value for name, value in self._config.extra_env.items() if names_secret(name)]
        return (*(() if self._key is None else (self._key,)), *hidden)


def how_ended(status: int | None) -> str:
    """In words."""
    if status is None:
        return "ended"
    return f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"


def _found(launch: Launch, env: Mapping[str, str]) -> str:
    program = launch.argv[0]
    found = shutil.which(program, path=env.get("PATH"))
    if found is None:
        raise LLMUnavailableError(
            f"there is no program {program!r} here; install it, or name its path", transient=False
        )
    return found
