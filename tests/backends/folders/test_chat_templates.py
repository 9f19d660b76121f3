"""A model's chat template: where it is found, what it is given, what it may not do."""

from __future__ import annotations

import json

import pytest

from headrace.backends.local.folders.template import ChatTemplate, find_template
from headrace.contracts.errors import LLMInvalidRequestError

HELLO = [{"role": "user", "content": "Hi"}]


def folder_with(folder, *, jinja=None, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    return folder


def test_a_file_of_its_own_goes_before_the_tokenizers_configuration(tmp_path):
    assert find_template(tmp_path) is None
    folder_with(tmp_path, chat_template="old")
    assert find_template(tmp_path).text == "old"
    (tmp_path / "chat_template.json").write_text('{"chat_template": "newer"}')
    assert find_template(tmp_path).text == "newer"
    folder_with(tmp_path, jinja="own", chat_template="old")
    assert find_template(tmp_path).text == "own"


def test_of_several_templates_the_one_for_tools_is_for_tools(tmp_path):
    named = [
        {"name": "default", "template": "plain"},
        {"name": "tool_use", "template": "with {{ tools | length }}"},
    ]
    template = find_template(folder_with(tmp_path, chat_template=named))
    assert template.fill(HELLO, None, {}) == "plain"
    assert template.fill(HELLO, [{"type": "function"}], {}) == "with 1"


def test_special_tokens_are_known_by_name_and_absent_ones_are_empty(tmp_path):
    text = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}"
    said = {"bos_token": "<s>", "eos_token": {"content": "</s>", "special": True}}
    template = find_template(folder_with(tmp_path, chat_template=text, **said))
    assert template.fill(HELLO, None, {}) == "<s>|</s>|"


def test_templates_are_read_as_they_are_written_for_transformers():
    text = """{%- for message in messages %}
    {%- if loop.index > 2 %}{% break %}{% endif %}
{{ message.role }}: {{ message.content }}
{% endfor -%}
{{ {"a": "<é>"} | tojson }}{% if not message %} {{ 1 }}{% endif %}"""
    filled = ChatTemplate(text).fill([*HELLO, *HELLO, *HELLO], None, {})
    assert filled.count("user: Hi") == 2
    assert '{"a": "<é>"}' in filled


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ nothing_of_that_name }}", "'nothing_of_that_name' is undefined"),
        ("{{ messages[0].nothing }}", "'nothing' is undefined"),
        ("{% for x in messages", "unexpected end"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ cycler.__init__.__globals__ }}", "unsafe"),
        ("{{ messages | nosuchfilter }}", "nosuchfilter"),
        ("{{ 1 + 'a' }}", "TypeError"),
    ],
)
def test_what_a_template_cannot_or_must_not_do_is_the_requests_error(text, said):
    with pytest.raises(LLMInvalidRequestError, match=said):
        ChatTemplate(text).fill(HELLO, None, {})


def test_a_template_may_ask_whether_a_name_has_a_value():
    text = "{% if tools is defined and tools %}a{% endif %}{% if message.x %}b{% endif %}c"
    assert ChatTemplate(text).fill(HELLO, None, {"message": {}}) == "c"


def test_an_assistants_turn_at_the_end_is_gone_on_with():
    text = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    begun = [*HELLO, {"role": "assistant", "content": "The answer "}]
    assert ChatTemplate(text).fill(begun, None, {}, continues=True) == (
        "<user>Hi</><assistant>The answer "
    )
    assert ChatTemplate(text).fill(HELLO, None, {}) == "<user>Hi</><assistant>"
    with pytest.raises(LLMInvalidRequestError, match="leaves out the assistant's turn"):
        ChatTemplate("{{ messages[0].content }}").fill(begun, None, {}, continues=True)
