"""``python -m compliance.steady``: the makers' own specifications judge the requests that we write.

The judge is Steady (npm ``@stdy/cli``), a server made of an OpenAPI document, which says in headers
whether a request is valid. The documents are those of OpenAI's and Ollama's APIs; they lie beside
the checkout, in ``../shared/specs``, or where ``--specs`` says. Where one, or npm, is missing, what
it judges is skipped and says why. Exits with 0 only if every request is valid.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from attrs import evolve, field, frozen

from compliance.steady_requests import (
    CHATS,
    COMPLETIONS,
    EMBEDDINGS,
    JUDGED,
    OLLAMA_CHATS,
    OLLAMA_EMBEDDINGS,
    OLLAMA_PROMPTS,
    PICTURES,
    RECORDINGS,
    SPEECHES,
)
from headrace import AsyncClient, LLMCapabilityError, LLMError, LLMRequest
from headrace.net.pool import PooledTransport
from headrace.net.transport import HttpReply, HttpRequest, TimeLimits, parse_url
from headrace.stores.models.store import default_cache
from headrace.traffic.endpoint import EndpointSettings
from headrace.wire.multipart import read_parts

ROOT = Path(__file__).parent.parent
SPECS = next(
    (found for f in (ROOT, *ROOT.parents) if (found := f / "shared" / "specs").is_dir()),
    ROOT.parent / "shared" / "specs",
)
VERSION = "0.22.2"
_START_S = 120.0
_INSTALL_S = 600.0


@frozen(kw_only=True)
class Verdict:
    """What the judge said of one request; no ``faults`` where it is valid."""

    path: str
    faults: tuple[str, ...]


@frozen(kw_only=True)
class Subject:
    """What one document judges.

    ``schemas`` are its bodies' by path, ``asked`` the requests of each provider's row, ``vectors``
    those for embeddings of the first one, ``speaks`` whether it is asked about sound as well, and
    ``wrong`` a request with two faults.
    """

    spec: str
    schemas: dict[str, str]
    asked: dict[str, dict[str, LLMRequest]]
    vectors: dict[str, dict[str, Any]] = field(repr=False)
    model: str
    wrong: tuple[str, bytes]
    speaks: bool = False


class Judge:
    """Meets Transport: sends on to Steady, and keeps what its headers say of each request.

    Steady lets fields pass that the specification does not have; here they are faults too.
    """

    def __init__(self, fields: dict[str, frozenset[str]]) -> None:
        self.verdicts: list[Verdict] = []
        self._fields = fields
        self._transport = PooledTransport()

    async def send(self, request: HttpRequest, limits: TimeLimits) -> HttpReply:
        reply = await self._transport.send(request, limits)
        path = request.url.target
        faults = [
            f"{value} at {reply.headers.get(name.replace('-message', '-path'), '?')}"
            for name, value in reply.headers.items()
            if name.startswith("x-steady-error-")
            and name.endswith("-message")
            and not _cannot_tell(path, value, reply.headers[name.replace("-message", "-path")])
        ]
        if reply.headers.get("x-steady-request-valid") != "true" and not faults:
            faults.append(f"the judge answered {reply.status} and did not say that it is valid")
        if path in self._fields:
            strange = _names(request) - self._fields[path]
            faults += [f"the specification has no field {name!r}" for name in sorted(strange)]
        self.verdicts.append(Verdict(path=path, faults=tuple(faults)))
        return reply

    async def aclose(self) -> None:
        await self._transport.aclose()


def _names(request: HttpRequest) -> set[str]:
    """The body's fields, of JSON or a form."""
    assert isinstance(request.body, bytes)
    content_type = dict(request.headers).get("content-type", "")
    if content_type.startswith("multipart/form-data"):
        parts = read_parts(content_type, request.body)
        return {part.name.removesuffix("[]") for part in parts}
    return set(json.loads(request.body))


def _cannot_tell(path: str, message: str, place: str) -> bool:
    """Whether Steady complains of content in parts in an item of ``/responses``.

    Two of the variants of an item have the type ``message``, and it chooses wrongly: it says so of
    the documentation's own example too, and calls the request valid beside it.
    """
    return path == "/responses" and place == "body.input" and "2 variants all failed" in message


def main() -> int:
    """Judge every request; print what is wrong with which."""
    reader = argparse.ArgumentParser(prog="python -m compliance.steady", description=__doc__)
    reader.add_argument("--specs", type=Path, default=SPECS, help="the folder of the documents")
    specs: Path = reader.parse_args().specs
    if shutil.which("npm") is None:
        print("steady: skipped, npm is not installed (it fetches the judge, @stdy/cli)")
        return 0
    bad = 0
    for subject in SUBJECTS:
        spec = specs / subject.spec
        if not spec.is_file():
            print(f"steady: skipped, there is no specification at {spec}; name a folder by --specs")
            continue
        with serving(installed(default_cache() / "compliance" / "steady"), spec) as base:
            bad += asyncio.run(judge(base, subject, fields_of(spec, subject.schemas)))
    print("steady: every request is valid" if not bad else f"steady: {bad} requests are not valid")
    return 1 if bad else 0


async def judge(base: str, subject: Subject, fields: dict[str, frozenset[str]]) -> int:
    """How many of the requests that were sent to the judge at ``base`` are not valid."""
    transport = Judge(fields)
    bad = 0
    if not await _is_awake(base, subject, fields):
        print("steady: it calls a request valid that is not; its verdicts are worth nothing")
        return 1
    for name, asked in subject.asked.items():
        client = AsyncClient(
            provider=name,
            base_url=base,
            api_key="sk-not-a-key",
            model=subject.model,
            endpoint=EndpointSettings(retry=None, breaker=None),
            transport=transport,
        )
        async with client:
            bad += await _judged(name, client, transport, asked)
            if name == next(iter(subject.asked)):
                bad += await _judged_besides(name, client, transport, subject)
    await transport.aclose()
    return bad


async def _is_awake(base: str, subject: Subject, fields: dict[str, frozenset[str]]) -> bool:
    """Whether the judge finds the faults in a request that has two."""
    control = Judge(fields)
    path, body = subject.wrong
    await post(control, f"{base}{path}", body)
    await control.aclose()
    (verdict,) = control.verdicts
    return len(verdict.faults) == 2


async def _judged(
    provider: str, client: AsyncClient, transport: Judge, asked: dict[str, LLMRequest]
) -> int:
    """How many of the requests that ``client`` writes for ``provider`` are not valid."""
    bad = 0
    for name, request in asked.items():
        for way in ("streamed", "whole"):
            label = f"{provider}: {name}, {way}"
            try:
                if way == "whole":
                    await client.generate(request)
                else:
                    await _stream(client, request)
            except LLMCapabilityError as refusal:
                print(f"none  {label}: {refusal}")  # we refuse it, so nothing was sent
                continue
            except LLMError:
                pass  # the judge's answers are made up; they are not what is judged
            bad += told(label, transport)
    return bad


async def _judged_besides(
    provider: str, client: AsyncClient, transport: Judge, subject: Subject
) -> int:
    """The same of its requests for embeddings and for its models."""
    bad = 0
    for name, asked in subject.vectors.items():
        with contextlib.suppress(LLMError):
            await client.embed(asked["inputs"], **{k: asked[k] for k in asked if k != "inputs"})
        bad += told(f"{provider}: {name}", transport)
    if subject.speaks:
        bad += await _judged_services(provider, client, transport)
    await client.healthcheck()
    return bad + told(f"{provider}: models", transport)


async def _judged_services(provider: str, client: AsyncClient, transport: Judge) -> int:
    """The same of what is asked about recordings, sound, pictures and what is to be judged."""
    bad = 0
    for name, asked in RECORDINGS.items():
        for way in ("streamed", "whole"):
            if way == "streamed" and asked.get("translate"):
                continue  # there are no such streams
            with contextlib.suppress(LLMError):
                if way == "whole":
                    await client.transcribe(**asked)
                else:
                    async for _ in client.stream_transcription(**asked):
                        pass
            bad += told(f"{provider}: {name}, {way}", transport)
    for name, asked in SPEECHES.items():
        with contextlib.suppress(LLMError):
            await client.speak(**asked)
        bad += told(f"{provider}: {name}", transport)
    for name, asked in PICTURES.items():
        with contextlib.suppress(LLMError):
            await client.draw(**asked)
        bad += told(f"{provider}: {name}", transport)
    for name, asked in JUDGED.items():
        with contextlib.suppress(LLMError):
            await client.moderate(**asked)
        bad += told(f"{provider}: {name}", transport)
    return bad


def _without_chats_own(request: LLMRequest) -> LLMRequest:
    """``request`` without the fields that only chat completions have."""
    options = dict(request.provider_options)
    for name in ("modalities", "prediction"):
        options.pop(name, None)
    return evolve(request, provider_options=options)


async def _stream(client: AsyncClient, request: LLMRequest) -> None:
    async for _ in client.stream(request):
        pass


async def post(transport: Judge, url: str, body: bytes) -> None:
    """Send ``body`` to the judge as it is."""
    headers = (("content-type", "application/json"), ("authorization", "Bearer sk-not-a-key"))
    asked = HttpRequest(method="POST", url=parse_url(url), headers=headers, body=body)
    reply = await transport.send(asked, TimeLimits(first_byte_s=60.0))
    try:
        await reply.read(1 << 20)
    finally:
        await reply.aclose()


def told(name: str, transport: Judge) -> int:
    """Print the verdicts on ``name``; 1 if it is not valid, or was never sent."""
    verdicts, transport.verdicts = transport.verdicts, []
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    if len(verdicts) != 1:
        faults.append(f"one request was expected, {len(verdicts)} were sent")
    print(f"{'ok   ' if not faults else 'WRONG'} {name}")
    for fault in faults:
        print(f"      {fault}")
    return 1 if faults else 0


SUBJECTS = (
    Subject(
        spec="openai.json",
        schemas={
            "/chat/completions": "CreateChatCompletionRequest",
            "/completions": "CreateCompletionRequest",
            "/embeddings": "CreateEmbeddingRequest",
            "/responses": "CreateResponse",
            "/audio/transcriptions": "CreateTranscriptionRequest",
            "/audio/translations": "CreateTranslationRequest",
            "/audio/speech": "CreateSpeechRequest",
            "/images/generations": "CreateImageRequest",
            "/moderations": "CreateModerationRequest",
        },
        asked={
            "openai": {**CHATS, **COMPLETIONS},
            "openai-responses": {name: _without_chats_own(chat) for name, chat in CHATS.items()},
        },
        vectors=EMBEDDINGS,
        model="gpt-4o",
        speaks=True,
        wrong=(
            "/chat/completions",
            b'{"model": "gpt-4o", "messages": [{"role": "user", "content": 1}], "no_such": 1}',
        ),
    ),
    Subject(
        spec="ollama.yaml",
        schemas={
            "/api/chat": "ChatRequest",
            "/api/generate": "GenerateRequest",
            "/api/embed": "EmbedRequest",
        },
        asked={"ollama": {**OLLAMA_CHATS, **OLLAMA_PROMPTS}},
        vectors=OLLAMA_EMBEDDINGS,
        model="gemma4",
        wrong=(
            "/api/chat",
            b'{"model": "m", "messages": [{"role": "user", "content": 1}], "no_such": 1}',
        ),
    ),
)


def fields_of(spec: Path, bodies: dict[str, str]) -> dict[str, frozenset[str]]:
    """The fields of each body that we write, as the specification has them."""
    text = spec.read_text(encoding="utf-8")
    document = json.loads(text) if spec.suffix == ".json" else yaml.safe_load(text)
    schemas: dict[str, Any] = document["components"]["schemas"]

    def names(schema: dict[str, Any]) -> frozenset[str]:
        if "$ref" in schema:
            return names(schemas[schema["$ref"].rsplit("/", 1)[-1]])
        parts = [
            names(each) for kind in ("allOf", "anyOf", "oneOf") for each in schema.get(kind, ())
        ]
        return frozenset(schema.get("properties", ())).union(*parts)

    return {path: names(schemas[name]) for path, name in bodies.items()}


def installed(folder: Path) -> Path:
    """The judge's program, fetched into ``folder`` by the first use."""
    program = folder / "node_modules" / ".bin" / "steady"
    described = folder / "node_modules" / "@stdy" / "cli" / "package.json"
    if described.is_file() and json.loads(described.read_text())["version"] == VERSION:
        return program
    print(f"Installing @stdy/cli {VERSION} into {folder} (once) ...", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder)]
    subprocess.run([*npm, f"@stdy/cli@{VERSION}"], check=True, timeout=_INSTALL_S)
    return program


@contextlib.contextmanager
def serving(program: Path, spec: Path) -> Iterator[str]:
    """The base URL of a judge that runs until the end."""
    # It announces the port that it was told, so a free one has to be found for it.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    # Lists in forms have brackets behind their names, as OpenAI's documentation and SDKs write them.
    lists = "--validator-form-array-format=brackets"
    command = [str(program), "--host", "127.0.0.1", "-p", str(port), lists, str(spec)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said: list[str] = []
    ready = threading.Event()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:  # to the end, or it would stand still on a full pipe
            if not ready.is_set():
                said.append(line)
            if "Ready to accept requests on " in line:
                ready.set()
        ready.set()

    threading.Thread(target=listen, daemon=True).start()
    try:
        ready.wait(_START_S)
        if not said or "Ready to accept requests on " not in said[-1]:
            raise SystemExit(f"steady: the judge did not start:\n{''.join(said)[-2000:]}")
        yield said[-1].split("requests on ")[1].split()[0]
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    sys.exit(main())
