"""Every path of OpenAI's API, and what becomes of it here.

https://platform.openai.com/docs/api-reference. A path is served by the gateway itself, or handed on
as it stands to a backend that has it, or refused with a word on what to use instead.
"""

from __future__ import annotations

from typing import Literal, TypeAlias
from urllib.parse import quote

from attrs import frozen

Treatment: TypeAlias = Literal["served", "by_model", "marked", "refused"]
"""``served``: the gateway answers; ``by_model``: handed on to the backend of the model that the
request names; ``marked``: handed on to the backend whose entry says that it ``passes`` the group;
``refused``: 501."""

PREFIXES = ("/v1", "/openai/v1")
"""Where the paths lie on the gateway: OpenAI's place and Groq's."""

_MOST_ID = 512


@frozen
class Group:
    """Paths that are treated alike; each entry is its methods and then the path.

    ``says`` is what is done for them, or, where they are refused, what to use instead.
    """

    name: str
    treatment: Treatment
    says: str
    entries: tuple[str, ...]


GROUPS: tuple[Group, ...] = (
    Group(
        "chat",
        "served",
        "by every model",
        ("POST /chat/completions", "POST /completions"),
    ),
    Group(
        "responses",
        "served",
        "by every model; the gateway keeps what is stored",
        (
            "POST /responses",
            "GET DELETE /responses/{response_id}",
            "POST /responses/{response_id}/cancel",
            "GET /responses/{response_id}/input_items",
        ),
    ),
    Group("embeddings", "served", "by every model that makes vectors", ("POST /embeddings",)),
    Group("models", "served", "the gateway's own routes", ("GET /models", "GET /models/{model}")),
    Group(
        "batches",
        "served",
        "by the gateway, with the files that batches need",
        (
            "GET POST /batches",
            "GET /batches/{batch_id}",
            "POST /batches/{batch_id}/cancel",
            "GET POST /files",
            "GET DELETE /files/{file_id}",
            "GET /files/{file_id}/content",
        ),
    ),
    Group(
        "audio",
        "served",
        "by a backend that has it; transcriptions and translations by the engine of the extra "
        "`[audio]` too",
        ("POST /audio/transcriptions", "POST /audio/translations", "POST /audio/speech"),
    ),
    Group(
        "images",
        "served",
        "by a backend that has it",
        ("POST /images/generations", "POST /images/edits", "POST /images/variations"),
    ),
    Group("moderations", "served", "by a backend that has it", ("POST /moderations",)),
    Group(
        "responses_tools",
        "by_model",
        "counting and compacting what a Responses request would send",
        ("POST /responses/compact", "POST /responses/input_tokens"),
    ),
    Group(
        "stored_completions",
        "marked",
        "chat completions that the provider has stored",
        (
            "GET /chat/completions",
            "GET POST DELETE /chat/completions/{completion_id}",
            "GET /chat/completions/{completion_id}/messages",
        ),
    ),
    Group(
        "conversations",
        "marked",
        "conversations that the provider keeps",
        (
            "POST /conversations",
            "GET POST DELETE /conversations/{conversation_id}",
            "GET POST /conversations/{conversation_id}/items",
            "GET DELETE /conversations/{conversation_id}/items/{item_id}",
        ),
    ),
    Group(
        "assistants",
        "marked",
        "assistants, their threads and runs",
        (
            "GET POST /assistants",
            "GET POST DELETE /assistants/{assistant_id}",
            "POST /threads",
            "POST /threads/runs",
            "GET POST DELETE /threads/{thread_id}",
            "GET POST /threads/{thread_id}/messages",
            "GET POST DELETE /threads/{thread_id}/messages/{message_id}",
            "GET POST /threads/{thread_id}/runs",
            "GET POST /threads/{thread_id}/runs/{run_id}",
            "POST /threads/{thread_id}/runs/{run_id}/cancel",
            "GET /threads/{thread_id}/runs/{run_id}/steps",
            "GET /threads/{thread_id}/runs/{run_id}/steps/{step_id}",
            "POST /threads/{thread_id}/runs/{run_id}/submit_tool_outputs",
        ),
    ),
    Group(
        "vector_stores",
        "marked",
        "files to search in",
        (
            "GET POST /vector_stores",
            "GET POST DELETE /vector_stores/{vector_store_id}",
            "POST /vector_stores/{vector_store_id}/search",
            "GET POST /vector_stores/{vector_store_id}/files",
            "GET POST DELETE /vector_stores/{vector_store_id}/files/{file_id}",
            "GET /vector_stores/{vector_store_id}/files/{file_id}/content",
            "POST /vector_stores/{vector_store_id}/file_batches",
            "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}",
            "POST /vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel",
            "GET /vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
        ),
    ),
    Group(
        "uploads",
        "marked",
        "large files, in parts; what comes of them lies at the provider",
        (
            "POST /uploads",
            "POST /uploads/{upload_id}/parts",
            "POST /uploads/{upload_id}/complete",
            "POST /uploads/{upload_id}/cancel",
        ),
    ),
    Group(
        "fine_tuning",
        "marked",
        "fine-tuning, its graders, and deleting what came of it",
        (
            "GET POST /fine_tuning/jobs",
            "GET /fine_tuning/jobs/{fine_tuning_job_id}",
            "POST /fine_tuning/jobs/{fine_tuning_job_id}/cancel",
            "POST /fine_tuning/jobs/{fine_tuning_job_id}/pause",
            "POST /fine_tuning/jobs/{fine_tuning_job_id}/resume",
            "GET /fine_tuning/jobs/{fine_tuning_job_id}/events",
            "GET /fine_tuning/jobs/{fine_tuning_job_id}/checkpoints",
            "POST /fine_tuning/alpha/graders/run",
            "POST /fine_tuning/alpha/graders/validate",
            "DELETE /models/{model}",
        ),
    ),
    Group(
        "evals",
        "marked",
        "evaluations and their runs",
        (
            "GET POST /evals",
            "GET POST DELETE /evals/{eval_id}",
            "GET POST /evals/{eval_id}/runs",
            "GET POST DELETE /evals/{eval_id}/runs/{run_id}",
            "GET /evals/{eval_id}/runs/{run_id}/output_items",
            "GET /evals/{eval_id}/runs/{run_id}/output_items/{output_item_id}",
        ),
    ),
    Group(
        "containers",
        "marked",
        "containers for code, and their files",
        (
            "GET POST /containers",
            "GET DELETE /containers/{container_id}",
            "GET POST /containers/{container_id}/files",
            "GET DELETE /containers/{container_id}/files/{file_id}",
            "GET /containers/{container_id}/files/{file_id}/content",
        ),
    ),
    Group(
        "skills",
        "marked",
        "skills and their versions",
        (
            "GET POST /skills",
            "GET POST DELETE /skills/{skill_id}",
            "GET /skills/{skill_id}/content",
            "GET POST /skills/{skill_id}/versions",
            "GET DELETE /skills/{skill_id}/versions/{version}",
            "GET /skills/{skill_id}/versions/{version}/content",
        ),
    ),
    Group(
        "videos",
        "marked",
        "videos",
        (
            "GET POST /videos",
            "GET DELETE /videos/{video_id}",
            "GET /videos/{video_id}/content",
            "POST /videos/{video_id}/remix",
            "POST /videos/edits",
            "POST /videos/extensions",
            "POST /videos/characters",
            "GET /videos/characters/{character_id}",
        ),
    ),
    Group(
        "voices",
        "marked",
        "voices of one's own, and the consent to them",
        (
            "POST /audio/voices",
            "GET POST /audio/voice_consents",
            "GET POST DELETE /audio/voice_consents/{consent_id}",
        ),
    ),
    Group(
        "content_provenance",
        "marked",
        "whether a picture or sound was made by the provider's models",
        ("POST /content_provenance_checks",),
    ),
    Group(
        "realtime",
        "refused",
        "ask the provider itself: a realtime session runs between it and the caller, past the gateway",
        (
            "POST /realtime/calls",
            "POST /realtime/calls/{call_id}/accept",
            "POST /realtime/calls/{call_id}/hangup",
            "POST /realtime/calls/{call_id}/refer",
            "POST /realtime/calls/{call_id}/reject",
            "POST /realtime/client_secrets",
            "POST /realtime/sessions",
            "POST /realtime/transcription_sessions",
            "POST /realtime/translations/client_secrets",
        ),
    ),
    Group(
        "chatkit",
        "refused",
        "ask the provider itself: its sessions give callers keys to the provider's account",
        (
            "POST /chatkit/sessions",
            "POST /chatkit/sessions/{session_id}/cancel",
            "GET /chatkit/threads",
            "GET DELETE /chatkit/threads/{thread_id}",
            "GET /chatkit/threads/{thread_id}/items",
        ),
    ),
    Group(
        "organization",
        "refused",
        "ask the provider itself, with a key for its administration: the gateway has none, and shows "
        "what was used at /metrics",
        (
            "GET POST /organization/admin_api_keys",
            "GET DELETE /organization/admin_api_keys/{key_id}",
            "GET /organization/audit_logs",
            "GET POST /organization/certificates",
            "POST /organization/certificates/activate",
            "POST /organization/certificates/deactivate",
            "GET POST DELETE /organization/certificates/{certificate_id}",
            "GET /organization/costs",
            "GET POST /organization/data_retention",
            "GET POST /organization/groups",
            "GET POST DELETE /organization/groups/{group_id}",
            "GET POST /organization/groups/{group_id}/roles",
            "GET DELETE /organization/groups/{group_id}/roles/{role_id}",
            "GET POST /organization/groups/{group_id}/users",
            "GET DELETE /organization/groups/{group_id}/users/{user_id}",
            "GET POST /organization/invites",
            "GET DELETE /organization/invites/{invite_id}",
            "GET POST /organization/projects",
            "GET POST /organization/projects/{project_id}",
            "GET /organization/projects/{project_id}/api_keys",
            "GET DELETE /organization/projects/{project_id}/api_keys/{api_key_id}",
            "POST /organization/projects/{project_id}/archive",
            "GET /organization/projects/{project_id}/certificates",
            "POST /organization/projects/{project_id}/certificates/activate",
            "POST /organization/projects/{project_id}/certificates/deactivate",
            "GET POST /organization/projects/{project_id}/data_retention",
            "GET POST /organization/projects/{project_id}/groups",
            "GET DELETE /organization/projects/{project_id}/groups/{group_id}",
            "GET POST /organization/projects/{project_id}/hosted_tool_permissions",
            "GET POST DELETE /organization/projects/{project_id}/model_permissions",
            "GET /organization/projects/{project_id}/rate_limits",
            "POST /organization/projects/{project_id}/rate_limits/{rate_limit_id}",
            "GET POST /organization/projects/{project_id}/service_accounts",
            "GET POST DELETE /organization/projects/{project_id}/service_accounts/{service_account_id}",
            "POST /organization/projects/{project_id}/service_accounts/{service_account_id}/api_keys",
            "GET POST /organization/projects/{project_id}/spend_alerts",
            "GET POST DELETE /organization/projects/{project_id}/spend_alerts/{alert_id}",
            "GET POST DELETE /organization/projects/{project_id}/spend_limit",
            "GET POST /organization/projects/{project_id}/users",
            "GET POST DELETE /organization/projects/{project_id}/users/{user_id}",
            "GET POST /organization/roles",
            "GET POST DELETE /organization/roles/{role_id}",
            "GET POST /organization/spend_alerts",
            "GET POST DELETE /organization/spend_alerts/{alert_id}",
            "GET POST DELETE /organization/spend_limit",
            "GET /organization/usage/audio_speeches",
            "GET /organization/usage/audio_transcriptions",
            "GET /organization/usage/code_interpreter_sessions",
            "GET /organization/usage/completions",
            "GET /organization/usage/embeddings",
            "GET /organization/usage/file_search_calls",
            "GET /organization/usage/images",
            "GET /organization/usage/moderations",
            "GET /organization/usage/vector_stores",
            "GET /organization/usage/web_search_calls",
            "GET /organization/users",
            "GET POST DELETE /organization/users/{user_id}",
            "GET POST /organization/users/{user_id}/roles",
            "GET DELETE /organization/users/{user_id}/roles/{role_id}",
            "GET POST /projects/{project_id}/groups/{group_id}/roles",
            "GET DELETE /projects/{project_id}/groups/{group_id}/roles/{role_id}",
            "GET POST /projects/{project_id}/roles",
            "GET POST DELETE /projects/{project_id}/roles/{role_id}",
            "GET POST /projects/{project_id}/users/{user_id}/roles",
            "GET DELETE /projects/{project_id}/users/{user_id}/roles/{role_id}",
            "GET POST /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
            "DELETE /fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions/{permission_id}",
        ),
    ),
)

MARKED = tuple(group.name for group in GROUPS if group.treatment == "marked")
"""The groups that a backend's entry may name under ``passes``."""


@frozen
class Known:
    """A path of the table that a request was made at.

    ``target`` is the same path as a backend is to be asked for it: written anew from the table, with
    the ids in it quoted. ``methods`` are those that the path takes.
    """

    group: Group
    template: str
    methods: tuple[str, ...]
    target: str


@frozen
class _Row:
    group: Group
    template: str
    methods: tuple[str, ...]
    parts: tuple[str, ...]

    def matches(self, parts: list[str]) -> bool:
        return all(
            own == part or (own.startswith("{") and _is_id(part))
            for own, part in zip(self.parts, parts, strict=True)
        )

    def found(self, parts: list[str]) -> Known:
        return Known(
            self.group,
            self.template,
            self.methods,
            "/" + "/".join(quote(part, safe="") for part in parts),
        )


def _rows() -> dict[int, list[_Row]]:
    rows: dict[int, list[_Row]] = {}
    for group in GROUPS:
        for entry in group.entries:
            *methods, template = entry.split()
            parts = tuple(template[1:].split("/"))
            rows.setdefault(len(parts), []).append(_Row(group, template, tuple(methods), parts))
    for several in rows.values():
        # Where a word of the table could be an id too, the word is meant.
        several.sort(key=lambda row: [part.startswith("{") for part in row.parts])
    return rows


_BY_LENGTH = _rows()


def find(method: str, path: str) -> Known | None:
    """What the table knows of ``path``, which is given without prefix and percent-decoded.

    Where the path is known and takes other methods only, it is one of these rows.
    """
    if not path.startswith("/"):
        return None
    parts = path[1:].split("/")
    other = None
    for row in _BY_LENGTH.get(len(parts), ()):
        if row.matches(parts):
            if method in row.methods:
                return row.found(parts)
            other = other or row
    return None if other is None else other.found(parts)


def _is_id(part: str) -> bool:
    return 0 < len(part) <= _MOST_ID and part not in (".", "..") and part.isprintable()
