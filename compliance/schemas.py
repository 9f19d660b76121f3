"""``python -m compliance.schemas``: answers to many schemas, and many forced calls, each judged.

Every schema in a folder (``--folder``; without one, those of our own tests) is asked for
once through a gateway with the real model, and judged by a validator that the gateway does not use;
then as many tool calls are forced over functions of every kind. Prints what was answered and valid,
cut by length, refused by name, and wrong. Exits with 0 only if nothing was wrong.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from attrs import frozen
from jsonschema import validators

from compliance.gateway import serving

OWN = Path(__file__).parent.parent / "tests" / "backends" / "schemas"
_PATIENCE_S = 600.0
_CALLS = 100
# In characters: the model reads them all before it calls, three tools at a time.
_MOST_PARAMETERS = 1200


@frozen(kw_only=True)
class Outcome:
    """How one request ended: ``valid``, ``length``, ``refused`` or ``wrong``, and what was said."""

    name: str
    kind: str
    said: str = ""
    tokens: int = 0


def main() -> int:
    """Ask, judge, print."""
    reader = argparse.ArgumentParser(prog="python -m compliance.schemas", description=__doc__)
    reader.add_argument("--folder", type=Path, default=OWN, help="JSON Schemas, one a file")
    reader.add_argument("--calls", type=int, default=_CALLS, help="forced tool calls")
    reader.add_argument("--max-tokens", type=int, default=512)
    reader.add_argument("--at-once", type=int, default=8, help="requests at a time")
    reader.add_argument("--url", help="a gateway that runs already")
    asked = reader.parse_args()
    schemas = [
        (path.stem, json.loads(path.read_text())) for path in sorted(asked.folder.glob("*.json"))
    ]
    if not schemas:
        raise SystemExit(f"there is no schema in {asked.folder}")
    if asked.url:
        return _report(asked, asked.url, schemas)
    with (
        tempfile.TemporaryDirectory() as folder,
        serving({}, Path(folder) / "gateway.log") as port,
    ):
        return _report(asked, f"http://127.0.0.1:{port}", schemas)


def _report(asked: argparse.Namespace, url: str, schemas: Sequence[tuple[str, Any]]) -> int:
    wrong = 0
    calls = list(_forced(asked.calls, [schema for _, schema in schemas]))
    with ThreadPoolExecutor(asked.at_once) as pool:
        for title, jobs, run in (("schemas", schemas, _answer), ("calls", calls, _call)):
            began = time.monotonic()
            answers = [pool.submit(run, url, *job, asked.max_tokens) for job in jobs]
            outcomes = [each.result() for each in answers]
            wrong += _print(title, outcomes, time.monotonic() - began)
    return 1 if wrong else 0


def _print(title: str, outcomes: Sequence[Outcome], took_s: float) -> int:
    count = Counter(outcome.kind for outcome in outcomes)
    tokens = sum(outcome.tokens for outcome in outcomes)
    print(
        f"{title}: {len(outcomes)} asked: {count['valid']} answered and valid, "
        f"{count['length']} cut by length, {count['refused']} refused by name, "
        f"{count['wrong']} wrong ({tokens} tokens, {took_s:.0f} s)"
    )
    reasons = Counter(_reason(o.said) for o in outcomes if o.kind == "refused")
    for reason, times in reasons.most_common():
        print(f"  refused {times}: {reason}")
    for outcome in outcomes:
        if outcome.kind in ("wrong", "length"):
            print(f"  {outcome.kind}: {outcome.name}: {outcome.said[:300]}")
    return count["wrong"]


def _reason(said: str) -> str:
    """A refusal's kind: its keyword, without the place."""
    found = re.match(r"'(\S+)' at \S+ cannot be held", said)
    return found[1] if found else said[:120]


def _answer(url: str, name: str, schema: Any, max_tokens: int) -> Outcome:
    shape = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    text = f"Give a short example of: {_title(schema, name)}"
    reply = _post(url, text, max_tokens, response_format=shape)
    if "error" in reply:
        return _failed(name, reply)
    choice, tokens = reply["choices"][0], reply["usage"]["completion_tokens"]
    content = choice["message"]["content"] or ""
    if choice["finish_reason"] == "length":
        return Outcome(name=name, kind="length", said=content[-150:], tokens=tokens)
    fault = _fault(schema, content)
    return Outcome(name=name, kind="wrong" if fault else "valid", said=fault, tokens=tokens)


def _call(
    url: str, name: str, tools: list[dict[str, Any]], choice: Any, max_tokens: int
) -> Outcome:
    several = choice == "several"
    reply = _post(
        url,
        "Use the function as it fits, with short values.",
        max_tokens,
        tools=tools,
        tool_choice="required" if several else choice,
        **({"parallel_tool_calls": True} if several else {}),
    )
    if "error" in reply:
        return _failed(name, reply)
    first, tokens = reply["choices"][0], reply["usage"]["completion_tokens"]
    if first["finish_reason"] == "length":
        return Outcome(name=name, kind="length", said=str(first["message"])[-150:], tokens=tokens)
    calls = first["message"].get("tool_calls") or []
    known = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    faults = [] if calls else ["no call"]
    for call in calls:
        function = call["function"]
        if function["name"] not in known or not call["id"]:
            faults.append(f"called {function['name']!r}")
        else:
            faults.append(_fault(known[function["name"]], function["arguments"]))
    if len(calls) > 1 and not several:
        faults.append(f"{len(calls)} calls")
    said = "; ".join(fault for fault in faults if fault)
    return Outcome(name=name, kind="wrong" if said else "valid", said=said, tokens=tokens)


def _forced(count: int, schemas: Sequence[Any]) -> Iterator[tuple[str, list[dict[str, Any]], Any]]:
    """``count`` forced calls: of the one tool, of any of three, of a named one, of several at once."""
    objects = [
        schema
        for schema in schemas
        if isinstance(schema, dict)
        # A function's parameters are an object, whatever else of the schema leaves that open.
        and schema.get("type", "object" if "properties" in schema else None) == "object"
        and len(json.dumps(schema)) <= _MOST_PARAMETERS
    ]
    for i in range(count if objects else 0):
        offered = [objects[(i + k) % len(objects)] for k in range(1 if i % 4 == 0 else 3)]
        tools = [
            {
                "type": "function",
                "function": {
                    "name": f"make_{k}",
                    "description": _title(schema, ""),
                    "parameters": schema,
                },
            }
            for k, schema in enumerate(offered)
        ]
        named = {"type": "function", "function": {"name": tools[-1]["function"]["name"]}}
        choice = ("required", "required", named, "several")[i % 4]
        yield f"call {i}", tools, choice


def _fault(schema: Any, text: str) -> str:
    """What is wrong with ``text``, by the reference implementation for Python; "" if nothing is."""
    try:
        value = json.loads(text)
    except ValueError as error:
        return f"no JSON ({error}): {text[:100]}"
    kind = validators.validator_for(schema)
    found = next(kind(schema, format_checker=kind.FORMAT_CHECKER).iter_errors(value), None)
    return "" if found is None else f"{found.message[:150]} at {list(found.absolute_path)}"


def _failed(name: str, reply: dict[str, Any]) -> Outcome:
    error = reply["error"]
    kind = "refused" if reply["status"] == 400 and error["param"] else "wrong"
    return Outcome(name=name, kind=kind, said=error["message"])


def _title(schema: Any, name: str) -> str:
    described = schema if isinstance(schema, dict) else {}
    said = described.get("title") or described.get("description") or name or "a record"
    return str(said)[:100]


def _post(url: str, text: str, max_tokens: int, **fields: Any) -> dict[str, Any]:
    body = {
        "messages": [{"role": "user", "content": text}],
        "max_tokens": max_tokens,
        "temperature": 0.7,
        "seed": 7,
        **fields,
    }
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_PATIENCE_S) as reply:
            answer: dict[str, Any] = json.load(reply)
            return answer
    except urllib.error.HTTPError as error:
        return {"status": error.code, **json.loads(error.read())}


if __name__ == "__main__":
    sys.exit(main())
