"""``headrace chat``: talk to a gateway, or anything that speaks OpenAI's format, in the terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from headrace.backends.remote import Remote
    from headrace.contracts.messages import LLMMessage
    from headrace.contracts.responses import Usage

_HELP = "/reset forgets the conversation, /system TEXT sets its system turn, /quit leaves"


def chat(
    prompt: Annotated[
        str | None,
        typer.Argument(help="Ask this and exit; without it, a conversation. - reads it."),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(envvar="HEADRACE_URL", help="The server. [default: http://127.0.0.1:8000]"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model; the server's first, if left out.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="The conversation's system turn.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[
        float | None, typer.Option(min=0, max=2, help="Sampling temperature.")
    ] = None,
) -> None:
    """Chat with a model, streaming. The key, if one is needed, is read from HEADRACE_API_KEY."""
    import uvloop

    base = url or f"http://127.0.0.1:{os.environ.get('HEADRACE_PORT') or 8000}"
    if prompt == "-":
        prompt = sys.stdin.read()
    conversation = Conversation(
        base, model=model, system=system, max_tokens=max_tokens, temperature=temperature
    )
    uvloop.run(conversation.run(prompt))


class Conversation:
    """One conversation with one server."""

    def __init__(
        self,
        url: str,
        *,
        model: str | None,
        system: str | None,
        max_tokens: int | None,
        temperature: float | None,
    ) -> None:
        self._url = url.rstrip("/")
        self._model = model
        self._system = system
        self._max_tokens, self._temperature = max_tokens, temperature
        self._turns: list[LLMMessage] = []

    async def run(self, prompt: str | None) -> None:
        """Ask ``prompt`` alone, or read from the terminal until it ends."""
        from headrace.backends.providers import provider
        from headrace.backends.remote import Remote
        from headrace.net.clock import World
        from headrace.net.pool import PooledTransport
        from headrace.net.proxy import ENVIRONMENT, find_proxies, through

        transport = PooledTransport()
        base_url = self._url if self._url.endswith("/v1") else f"{self._url}/v1"
        proxies = find_proxies(ENVIRONMENT, os.environ)
        remote = Remote(
            name=self._url,
            provider=provider("openai-compatible"),
            base_url=base_url,
            world=World(transport=through(transport, proxies, base_url)),
            key=os.environ.get("HEADRACE_API_KEY") or None,
        )
        try:
            if self._model is None:
                listed = await remote.models()
                self._model = listed[0].model_id if listed else None
            if prompt is not None:
                await self._ask(remote, prompt)
                return
            await self._converse(remote)
        finally:
            await transport.aclose()

    async def _converse(self, remote: Remote) -> None:
        import asyncio

        from headrace.contracts.errors import LLMError

        typer.secho(f"{self._model} at {self._url}; {_HELP}", dim=True, err=True)
        while True:
            try:
                line = await asyncio.get_running_loop().run_in_executor(None, input, "> ")
            except EOFError:
                typer.echo()
                return
            if self._command(line.strip()):
                continue
            if line.strip() in {"/quit", "/exit"}:
                return
            try:
                await self._ask(remote, line)
            except LLMError as error:
                # The question is forgotten with its failed answer, so that it can be asked again.
                typer.secho(f"{type(error).__name__}: {error}", fg="red", err=True)

    def _command(self, line: str) -> bool:
        """Whether ``line`` was a command to us, or nothing."""
        word, _, rest = line.partition(" ")
        if word == "/reset":
            self._turns.clear()
            typer.secho("the conversation is forgotten", dim=True, err=True)
        elif word == "/system":
            self._system = rest.strip() or None
            typer.secho(f"system turn: {self._system or 'none'}", dim=True, err=True)
        elif word in {"/help", "/?"}:
            typer.secho(_HELP, dim=True, err=True)
        else:
            return not line
        return True

    async def _ask(self, remote: Remote, text: str) -> None:
        from contextlib import aclosing

        from headrace.contracts.messages import LLMMessage
        from headrace.contracts.record import Marks
        from headrace.contracts.requests import LLMRequest
        from headrace.wire.assemble import Assembler

        question = LLMMessage(role="user", content=text)
        opening = () if self._system is None else (LLMMessage(role="system", content=self._system),)
        request = LLMRequest(
            messages=(*opening, *self._turns, question),
            model=self._model,
            max_tokens=self._max_tokens,
            temperature=self._temperature,
        )
        now = remote.world.clock.monotonic
        marks, assembler = Marks(), Assembler()
        first = None
        async with aclosing(remote.stream(request, marks)) as deltas:
            async for delta in deltas:
                assembler.add(delta)
                if delta.text_delta:
                    first = first or now()
                    sys.stdout.write(delta.text_delta)
                    sys.stdout.flush()
        response = assembler.response()
        sys.stdout.write("\n")
        sys.stdout.flush()
        self._turns += [question, LLMMessage(role="assistant", content=response.text)]
        if sys.stderr.isatty():
            typer.secho(_figures(response.usage, marks.sent, first, now), dim=True, err=True)


def _figures(
    usage: Usage | dict[str, int] | None,
    sent: float | None,
    first: float | None,
    now: Callable[[], float],
) -> str:
    from headrace.contracts.record import Timeline
    from headrace.contracts.responses import Usage
    from headrace.numbers.timeline import output_tokens_per_s, time_to_first_token

    end = now()
    timeline = Timeline(
        anchor=end, wall_anchor=0.0, sent=sent, first_token=first, last_token=end, done=end
    )
    tokens = usage.completion_tokens if isinstance(usage, Usage) else None
    figures = [] if tokens is None else [f"{tokens} tokens"]
    ttft = time_to_first_token(timeline)
    if ttft is not None:
        figures.append(f"first after {ttft * 1000:.0f} ms")
    speed = output_tokens_per_s(timeline, tokens)
    if speed is not None:
        figures.append(f"{speed:.0f} tokens/s")
    return ", ".join(figures)
