"""The section on OpenAI's paths: what becomes of each, made from the table that requests are read by."""

from __future__ import annotations

from headrace.wire.openai_paths import GROUPS, PREFIXES, Group

_HEADINGS = {
    "served": "Served",
    "by_model": "Handed on to the backend of the model",
    "marked": "Handed on to the backend that is marked",
    "refused": "Refused",
}
_WORDS = {
    "served": "The gateway answers.",
    "by_model": "The request goes, as it stands, to the backend that its `model` leads to, where that "
    "speaks OpenAI's format; 501 otherwise.",
    "marked": "The request goes, as it stands, to the one backend whose entry says `passes: [group]`; "
    "without such an entry the answer is 501.",
    "refused": "The answer is 501 with the code `not_supported`, and says what to do instead.",
}


def paths_section() -> str:
    """A section of docs/wire.md: every path of OpenAI's specification, by what becomes of it."""
    count = sum(len(entry.split()) - 1 for group in GROUPS for entry in group.entries)
    lines = [
        "## OpenAI's paths",
        "",
        f"All {count} operations of OpenAI's specification, beneath `{PREFIXES[0]}` and, for Groq's "
        f"clients, `{PREFIXES[1]}`.",
        "A path that is not in this table is a 404, and is never handed on.",
        "",
        "What is handed on is written anew: the path from this table with its ids quoted, of the headers",
        "only `accept`, `content-type` and `openai-beta`, and the backend's key in the place of the",
        "caller's. Bodies are bounded by `server.max_body_bytes`, answers by 1 GiB; redirects are not",
        "followed. What may leave something behind is asked once. Errors come back in OpenAI's form,",
        "answers as they are, piece by piece. Each call has its record (`pass_through`), with the usage",
        "where the answer tells it.",
        "",
        "Whoever may use the gateway sees all that lies in the backend's account under a group that it",
        "passes: OpenAI knows one key. So nothing is passed unless the configuration says so:",
        "",
        "```yaml",
        "backends:",
        "  - name: openai",
        "    provider: openai",
        '    models: ["gpt-*"]',
        "    passes: [vector_stores, uploads, fine_tuning]",
        "```",
        "",
        "`/v1/files` and `/v1/batches` are the gateway's own, so a file for a vector store or for",
        "fine-tuning is brought to the provider by `/v1/uploads`.",
        "",
    ]
    for treatment, heading in _HEADINGS.items():
        lines += [f"### {heading}", "", _WORDS[treatment], "", *_table(treatment)]
    return "\n".join(lines)


def _table(treatment: str) -> list[str]:
    lines = ["| group | what | paths |", "|---|---|---|"]
    for group in GROUPS:
        if group.treatment == treatment:
            lines.append(f"| `{group.name}` | {group.says} | {_entries(group)} |")
    return [*lines, ""]


def _entries(group: Group) -> str:
    return "<br>".join(
        f"{', '.join(entry.split()[:-1])} `{entry.split()[-1]}`" for entry in group.entries
    )
