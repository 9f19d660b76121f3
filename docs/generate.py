"""Write the documents that are made from the code; with ``--check``, say whether they are current."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from attrs import NOTHING, Factory, fields, resolve_types
from engine_metrics_page import engine_metrics_page
from load_report_page import fields_page, schema
from reference_page import reference
from wire_page import wire_page

from headrace.backends.local.templates import NAMES as TEMPLATES
from headrace.backends.providers import PROVIDERS
from headrace.backends.row import Provider
from headrace.contracts.profiling import CONTRACTS
from headrace.contracts.schema import schemas
from headrace.gateway.backend_config import BackendConfig
from headrace.gateway.config import Config, variables
from headrace.gateway.engines_config import EngineEntry
from headrace.gateway.hedge_config import HedgeConfig
from headrace.gateway.openapi import describe
from headrace.gateway.profiles import BASE
from headrace.gateway.route_config import RouteConfig, WayConfig
from headrace.stores.models import PRESETS

HERE = Path(__file__).parent
LISTS: dict[str, Any] = {
    "backends": BackendConfig,
    "engines": EngineEntry,
    "routes": RouteConfig,
}
NOTE = "<!-- Made from the code by docs/generate.py; change that, then run `make docs`. -->"


def configuration() -> str:
    """Every section and field with its default, variable and meaning."""
    names = {place: name for name, place in reversed(variables().items())}
    lines = [
        "# Configuration",
        "",
        NOTE,
        "",
        "`headrace serve config.yaml` reads YAML; the environment goes before the file, and the",
        "command line before both. Every section and every field may be left out. An unknown key is",
        "refused with the nearest known one; `headrace serve --check config.yaml` says whether a file",
        "is right. A field's variable is `HEADRACE_<SECTION>__<FIELD>`, or the short one shown here;",
        "lists are separated by commas.",
        "",
        "```yaml",
        "server:",
        "  port: 9000",
        "inference:",
        "  temperature: 0.2",
        "records:",
        "  file: ~/calls.jsonl",
        "providers:",
        "  - name: corp",
        "    base_url: https://llm.corp.example/v1",
        "    key_env: [CORP_LLM_KEY]",
        "backends:",
        "  - name: laptop",
        "    base_url: http://127.0.0.1:8080/v1",
        '    models: ["llama-*"]',
        "  - name: big",
        "    provider: corp",
        '    models: ["corp-*"]',
        "    max_concurrent_requests: 20",
        "    requests_per_minute: 600",
        "engines:",
        "  - name: mine",
        "    backend: command",
        "    model: /models/mine.gguf",
        '    command: [llama-server, --model, "{model}", --port, "{port}"]',
        "routes:",
        "  - name: assistant",
        "    backends:",
        "      - {backend: big, model: corp-large}",
        "      - {backend: laptop, model: llama-3.2-3b}",
        "```",
        "",
    ]
    for section in fields(resolve_types(Config)):
        if section.name == "providers":
            lines += rows()
            continue
        cls: Any = LISTS.get(section.name, section.type)
        title = f"{section.name} (a list)" if section.name in LISTS else section.name
        lines += [f"## {title}", "", first_paragraph(cls), "", *table(section.name, cls, names)]
        if section.name == "routes":
            lines += ["Each of its `backends`: " + first_paragraph(WayConfig), ""]
            lines += table("", WayConfig, names)
            lines += ["Its `hedge`: " + first_paragraph(HedgeConfig), ""]
            lines += table("", HedgeConfig, names)
    lines += [
        "Other variables: `HEADRACE_CACHE` (where models lie, else `~/.cache/headrace`),",
        "`HEADRACE_STATE` (what engines run, and their logs, else `~/.local/state/headrace`),",
        "`HEADRACE_CONFIG` (the file, where the command line names none), `HEADRACE_API_KEY` and",
        "`HEADRACE_URL` (for `headrace chat`).",
        "",
        f"Providers: {listing(PROVIDERS)}. Prompt templates: {listing(TEMPLATES)}.",
        "",
        "## Models known by name",
        "",
        "| name | source | licence | asked with |",
        "|---|---|---|---|",
    ]
    for preset in PRESETS.values():
        asked = {
            "max_tokens": preset.max_tokens,
            "temperature": preset.temperature,
            "top_p": preset.top_p,
            "system_prompt": preset.system_prompt,
        }
        said = ", ".join(f"`{key}` {value!r}" for key, value in asked.items() if value is not None)
        lines.append(f"| `{preset.name}` | `{preset.source}` | {preset.license} | {said} |")
    lines += [
        "",
        "What a request names wins over a model's own values, and those over `inference`.",
        "",
    ]
    return "\n".join(lines)


def table(section: str, cls: Any, names: dict[tuple[str, str], str]) -> list[str]:
    """The fields of ``cls``; ``names`` are those of their variables."""
    lines = ["| field | default | variable | meaning |", "|---|---|---|---|"]
    for item in fields(resolve_types(cls)):
        variable = names.get((section, item.name), "")
        lines.append(
            f"| `{item.name}` | {default(item)} | {f'`{variable}`' if variable else ''} "
            f"| {item.metadata['help'].replace('|', '/')} |"
        )
    return [*lines, ""]


def rows() -> list[str]:
    """The section of the configuration that holds what a user's own provider is."""
    named = ["like", *(item.name for item in fields(Provider))]
    return [
        "## providers (a list)",
        "",
        "Rows of the user's own for the provider table; `backends` name them as `provider`. The",
        "fields are those of [a row](providers.md#add-a-provider), read as `read_providers` reads",
        "them: `name` is required, and `like` names a row (a known one, or one further up) whose",
        "fields are used where this one has none. The name of a known provider is refused.",
        "",
        f"Fields: {', '.join(f'`{name}`' for name in named)}.",
        "",
    ]


def commands() -> str:
    """The help of every command, as it prints it."""
    import typer.main
    from typer.testing import CliRunner

    from headrace.cli.main import app_of

    lines = ["# Commands", "", NOTE, ""]
    app = app_of()
    runner = CliRunner(env={"COLUMNS": "96", "NO_COLOR": "1", "TERM": "dumb"})
    group: Any = typer.main.get_command(app)
    for words in [[], *below(group)]:
        result = runner.invoke(app, [*words, "--help"], prog_name="headrace")
        assert result.exit_code == 0, result.output
        text = "\n".join(line.rstrip() for line in result.output.strip().splitlines())
        lines += [
            f"{'##' if len(words) < 2 else '###'} {' '.join(['headrace', *words])}",
            "",
            "```text",
            text,
            "```",
            "",
        ]
    return "\n".join(lines)


def below(group: Any, *words: str) -> list[list[str]]:
    """The words of every command of ``group`` and of the groups in it."""
    found = []
    for name, command in sorted(group.commands.items()):
        found.append([*words, name])
        if hasattr(command, "commands"):
            found += below(command, *words, name)
    return found


def openapi() -> str:
    """The contracts of profiling, and the paths of a gateway that go with them, as OpenAPI 3.1."""
    whole = describe(needs_key=False, version="1", is_profiled=True)
    paths = {path: said for path, said in whole["paths"].items() if path.startswith(BASE)}
    error = {"Error": whole["components"]["schemas"]["Error"]}
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "headrace profiling",
            "version": "1",
            "description": "What a profile is asked for, how it stands, and what it found.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": {**schemas(CONTRACTS), **error}},
    }
    note = "# Made from the code by docs/generate.py; change that, then run `make docs`.\n"
    return note + yaml.safe_dump(document, sort_keys=False, width=96, allow_unicode=True)


def first_paragraph(cls: type) -> str:
    return " ".join((cls.__doc__ or "").strip().split()).replace("``", "`")


def default(item: Any) -> str:
    value = item.default
    if value is NOTHING:
        return "required"
    if isinstance(value, Factory):  # type: ignore[arg-type]
        value = value.factory()
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def listing(names: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


DOCUMENTS: dict[str, Callable[[], str]] = {
    "configuration.md": configuration,
    "commands.md": commands,
    "engine-metrics.md": lambda: engine_metrics_page(NOTE),
    "reference.md": lambda: reference(NOTE),
    "load-report-fields.md": lambda: fields_page(NOTE),
    "load-report.schema.json": schema,
    "openapi.yaml": openapi,
    "wire.md": lambda: wire_page(NOTE),
}


def main() -> None:
    stale = []
    for name, write in DOCUMENTS.items():
        path, text = HERE / name, write()
        if path.is_file() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    if stale and "--check" in sys.argv:
        sys.exit(f"docs/{', docs/'.join(stale)} do not say what the code says: run 'make docs'")
    print("written: " + ", ".join(stale) if stale else "documents are current")


if __name__ == "__main__":
    main()
