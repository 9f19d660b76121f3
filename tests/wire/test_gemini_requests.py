"""Requests in Gemini's form: what they mean to us, and what is refused by which name."""

import json

import pytest

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.contracts.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    LLMMessage,
    ReasoningPart,
    TextPart,
    ToolCall,
    ToolSpec,
)
from headrace.contracts.requests import LLMRequest, NamedTool
from headrace.wire import gemini, gemini_embeddings

USER = {"role": "user", "parts": [{"text": "hi"}]}
PIXEL = "iVBORw0KGgo="
F = {"name": "f", "description": "", "parametersJsonSchema": {"type": "object"}}
G = {"name": "g", "parameters": {"type": "OBJECT"}}
TOOLS = [{"functionDeclarations": [F, G]}]
CALL = {"functionCall": {"name": "f", "args": {"a": [1]}}}


def inbound(**fields):
    return gemini.read_request(json.dumps({"contents": [USER], **fields}).encode())


def request(**fields):
    return inbound(**fields).request


def turns(*contents):
    return request(contents=list(contents)).messages


def config(**fields):
    return request(generationConfig=fields)


def calling(**fields):
    return request(tools=TOOLS, toolConfig={"functionCallingConfig": fields})


def body(**fields):
    asked = LLMRequest(messages=(LLMMessage(role="user", content="hi"),), **fields)
    return json.loads(gemini.write_request(asked, stream=False))


PLAIN = LLMRequest(
    messages=(
        LLMMessage(role="system", content="Be brief."),
        LLMMessage(role="user", content="hi"),
    ),
    max_tokens=5,
    temperature=0.5,
    top_p=0.9,
    top_k=5,
    n=2,
    seed=7,
    stop=("a",),
    presence_penalty=0.1,
    frequency_penalty=0.2,
    logprobs=True,
    top_logprobs=3,
    reasoning_effort="low",
    provider_options={"safetySettings": [{"category": "C", "threshold": "T"}]},
)


@pytest.mark.parametrize("snake", [False, True], ids=["camelCase", "snake_case"])
def test_the_plain_fields(snake):
    fields = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "safetySettings": [{"category": "C", "threshold": "T"}],
        "generationConfig": {
            "maxOutputTokens": 5,
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 5,
            "candidateCount": 2,
            "seed": 7,
            "stopSequences": ["a"],
            "presencePenalty": 0.1,
            "frequencyPenalty": 0.2,
            "responseLogprobs": True,
            "logprobs": 3,
            "thinkingConfig": {"thinkingLevel": "low", "includeThoughts": True},
        },
    }
    read = inbound(**(snaked(fields) if snake else fields))
    assert read.request == PLAIN
    assert read.tells_reasoning
    assert read.dropped == ()


def snaked(value):
    if isinstance(value, list):
        return [snaked(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        "".join(f"_{c.lower()}" if c.isupper() else c for c in name): snaked(each)
        for name, each in value.items()
    }


def test_one_object_stands_for_a_list_of_it():
    """As Google's own examples for curl have it."""
    read = request(
        contents={"parts": {"text": "hi"}}, system_instruction={"parts": {"text": "Be brief."}}
    )
    assert read.messages == PLAIN.messages


def test_the_model_of_a_body_is_without_its_collection():
    assert request(model="models/gemini-2.5-flash").model == "gemini-2.5-flash"


@pytest.mark.parametrize(
    ("part", "read"),
    [
        ({"text": "a"}, TextPart(text="a")),
        (
            {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
            ImagePart(data=b"\x89PNG\r\n\x1a\n", media_type="image/png"),
        ),
        (
            {"inline_data": {"mime_type": "audio/mpeg", "data": "-_8"}},
            AudioPart(data=b"\xfb\xff", format="mp3"),
        ),
        (
            {"inlineData": {"mimeType": "application/pdf", "data": "JVBERg==", "displayName": "a"}},
            FilePart(data=b"%PDF", media_type="application/pdf", filename="a"),
        ),
        (
            {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.test/a.png"}},
            ImagePart(url="https://x.test/a.png", media_type="image/webp"),
        ),
        (
            {"fileData": {"fileUri": "https://www.youtube.com/watch?v=a"}},
            FilePart(url="https://www.youtube.com/watch?v=a"),
        ),
        (
            {
                "fileData": {
                    "fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc-1"
                }
            },
            FilePart(file_id="abc-1"),
        ),
    ],
)
def test_a_part_of_a_user(part, read):
    (turn,) = turns({"parts": [{"text": "Look:"}, part]})
    assert turn == LLMMessage(role="user", content=(TextPart(text="Look:"), read))


def test_a_models_turn():
    (_, turn) = turns(
        USER,
        {
            "role": "model",
            "parts": [
                {"text": "Hm.", "thought": True},
                {"text": "Let me "},
                {"text": "see."},
                {**CALL, "thoughtSignature": "c2VhbA=="},
                {"functionCall": {"id": "x", "name": "g"}},
            ],
        },
    )
    assert turn == LLMMessage(
        role="assistant",
        content="Let me see.",
        reasoning="Hm.",
        reasoning_parts=(
            ReasoningPart(text="Hm."),
            ReasoningPart(signature="c2VhbA==", part_id="gemini:call:0"),
        ),
        tool_calls=(
            ToolCall(name="f", arguments_json='{"a":[1]}', call_id="gemini_2_0"),
            ToolCall(name="g", arguments_json="{}", call_id="x"),
        ),
    )


def test_turns_of_a_model_that_follow_one_another_can_be_made_one():
    """Google's clients keep a streamed answer as one content a chunk."""
    sealed = {**CALL, "thoughtSignature": "c2VhbA=="}
    said = [[{"text": "Let me "}], [{"text": "see."}], [CALL], [sealed]]
    read = turns(USER, *({"role": "model", "parts": parts} for parts in said), USER)
    assert len(read) == 6
    user, model, last = gemini.joined(read)
    assert (user, last) == (read[0], read[-1])
    assert model.content == "Let me see."
    assert len({call.call_id for call in model.tool_calls}) == 2
    assert model.reasoning_parts == (ReasoningPart(signature="c2VhbA==", part_id="gemini:call:1"),)


def answered(name, said, **more):
    return {"functionResponse": {"name": name, "response": said, **more}}


def test_results_without_ids_answer_the_first_open_call_of_their_name():
    model = {"role": "model", "parts": [CALL, {"functionCall": {"name": "g"}}, CALL]}
    results = [
        answered("g", {"output": "one"}),
        answered("f", {"error": "two"}),
        answered("f", {"output": {"a": 1}}),
        {"text": "Well?"},
    ]
    *_, one, two, three, said = turns(USER, model, {"role": "user", "parts": results})
    assert [(turn.content, turn.tool_call_id, turn.tool_name) for turn in (one, two, three)] == [
        ("one", "gemini_2_1", "g"),
        ("two", "gemini_2_0", "f"),
        ('{"a":1}', "gemini_2_2", "f"),
    ]
    assert [turn.tool_error for turn in (one, two, three)] == [None, True, None]
    assert said == LLMMessage(role="user", content="Well?")


def test_a_result_that_is_neither_output_nor_error_is_the_output():
    model = {"role": "model", "parts": [CALL]}
    for role in ("user", "function"):
        reply = {"role": role, "parts": [answered("f", {"result": 5})]}
        assert turns(USER, model, reply)[-1].content == '{"result":5}'


def test_a_result_may_have_pictures():
    picture = {"inlineData": {"mimeType": "image/png", "data": PIXEL}}
    model = {"role": "model", "parts": [CALL]}
    reply = {"role": "user", "parts": [answered("f", {"output": "here"}, parts=[picture])]}
    content = turns(USER, model, reply)[-1].content
    assert content == (
        TextPart(text="here"),
        ImagePart(data=b"\x89PNG\r\n\x1a\n", media_type="image/png"),
    )


@pytest.mark.parametrize(
    ("mode", "choice", "names"),
    [
        ({}, "auto", ["f", "g"]),
        ({"mode": "AUTO"}, "auto", ["f", "g"]),
        ({"mode": "none"}, "none", ["f", "g"]),
        ({"mode": "ANY"}, "required", ["f", "g"]),
        ({"mode": "ANY", "allowedFunctionNames": ["g"]}, NamedTool(name="g"), ["f", "g"]),
        ({"mode": "ANY", "allowedFunctionNames": ["f", "g"]}, "required", ["f", "g"]),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, None, ["f"]),
    ],
)
def test_what_may_be_called(mode, choice, names):
    read = calling(**mode)
    assert read.tool_choice == choice
    assert [tool.name for tool in read.tools] == names
    assert all(
        tool.strict is (True if mode.get("mode") == "VALIDATED" else None) for tool in read.tools
    )


def test_googles_schemas_are_json_schemas_in_other_words():
    schema = {
        "type": "OBJECT",
        "nullable": True,
        "propertyOrdering": ["b", "a"],
        "required": ["a"],
        "properties": {
            "a": {"type": "STRING", "format": "enum", "enum": ["x", "y"], "nullable": True},
            "b": {
                "type": "ARRAY",
                "items": {"type": "INTEGER", "format": "int32"},
                "maxItems": "3",
            },
            "type": {"any_of": [{"type": "NUMBER"}, {"ref": "#/defs/d"}]},
        },
        "defs": {"d": {"type": "string", "format": "date-time", "min_length": 2}},
    }
    read = config(responseMimeType="application/json", responseSchema=schema).response_schema
    assert list(read["properties"]) == ["b", "a", "type"]
    assert read == {
        "type": ["object", "null"],
        "required": ["a"],
        "properties": {
            "b": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
            "a": {"anyOf": [{"type": "string", "enum": ["x", "y"]}, {"type": "null"}]},
            "type": {"anyOf": [{"type": "number"}, {"$ref": "#/$defs/d"}]},
        },
        "$defs": {"d": {"type": "string", "format": "date-time", "minLength": 2}},
    }


def test_the_properties_of_a_schema_are_their_authors_to_name():
    schema = {"type": "object", "properties": {"max_items": {"type": "string"}}}
    for name in ("responseSchema", "responseJsonSchema"):
        read = config(responseMimeType="application/json", **{name: schema})
        assert read.response_schema == schema
    (tool,) = request(tools={"function_declarations": {"name": "f", "parameters": schema}}).tools
    assert tool == ToolSpec(name="f", input_schema=schema)


@pytest.mark.parametrize(
    ("thinking", "effort", "kept"),
    [
        ({"thinkingBudget": 0}, "none", {}),
        ({"thinkingBudget": 1024}, "low", {}),
        ({"thinkingBudget": 600}, "low", {"thinkingBudget": 600}),
        ({"thinkingBudget": 9000}, "high", {"thinkingBudget": 9000}),
        ({"thinkingBudget": -1}, None, {"thinkingBudget": -1}),
        ({"thinkingLevel": "HIGH"}, "high", {}),
        ({"includeThoughts": True}, None, {"includeThoughts": True}),
        ({}, None, {}),
    ],
)
def test_how_much_is_thought(thinking, effort, kept):
    read = inbound(generationConfig={"thinkingConfig": thinking})
    assert read.request.reasoning_effort == effort
    assert read.request.provider_options == ({"thinkingConfig": kept} if kept else {})
    assert read.tells_reasoning is bool(thinking.get("includeThoughts"))


def test_what_we_have_no_place_for_is_named():
    read = inbound(
        contents=[
            {
                "parts": [
                    {"text": "a", "video_metadata": {"fps": 1}, "mediaResolution": {}},
                    {"fileData": {"fileUri": "gs://a/b", "x\n": 1}},
                ]
            }
        ],
        tools=[{"functionDeclarations": [{**F, "behavior": "BLOCKING"}]}],
    )
    assert read.dropped == (
        "tools.functionDeclarations.behavior",
        "contents.parts.videoMetadata",
        "contents.parts.fileData.?",
    )


BAD = [
    ({"contents": []}, "contents"),
    ({"contents": "hi"}, "contents"),
    ({"contents": None}, "contents"),
    ({"contents": [{"parts": []}]}, "contents[0].parts"),
    ({"contents": [{"role": "system", "parts": [{"text": "a"}]}]}, "contents[0].role"),
    ({"contents": [{"parts": [{}]}]}, "contents[0].parts[0].text"),
    ({"contents": [{"parts": [{"text": 1}]}]}, "contents[0].parts[0].text"),
    (
        {"contents": [{"parts": [{"text": "a", "inlineData": {}}]}]},
        "contents[0].parts[0].inlineData",
    ),
    (
        {"contents": [{"parts": [{"inlineData": {"data": PIXEL}}]}]},
        "contents[0].parts[0].inlineData.mimeType",
    ),
    (
        {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": "?"}}]}]},
        "contents[0].parts[0].inlineData.data",
    ),
    ({"contents": [{"parts": [CALL]}]}, "contents[0].parts[0].functionCall"),
    (
        {"contents": [USER, {"role": "model", "parts": [{"executableCode": {"code": "1"}}]}]},
        "contents[1].parts[0].executableCode",
    ),
    (
        {"contents": [USER, {"parts": [answered("f", {})]}]},
        "contents[1].parts[0].functionResponse.name",
    ),
    (
        {"systemInstruction": {"parts": [{"inlineData": {}}]}},
        "systemInstruction.parts[0].inlineData",
    ),
    ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
    ({"tools": [{}]}, "tools[0].functionDeclarations"),
    (
        {"tools": [{"functionDeclarations": [{**F, "parameters": {"type": "OBJECT"}}]}]},
        "tools[0].functionDeclarations[0].parametersJsonSchema",
    ),
    (
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "STRING"}}]}]},
        "tools[0].functionDeclarations[0].parameters.type",
    ),
    (
        {"tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "OBJ"}}]}]},
        "tools[0].functionDeclarations[0].parameters.type",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "SOME"}}},
        "toolConfig.functionCallingConfig.mode",
    ),
    (
        {"toolConfig": {"functionCallingConfig": {"mode": "ANY"}}},
        "toolConfig.functionCallingConfig.mode",
    ),
    (
        {
            "tools": TOOLS,
            "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["h"]}},
        },
        "toolConfig.functionCallingConfig.allowedFunctionNames[0]",
    ),
    (
        {
            "tools": TOOLS,
            "toolConfig": {"functionCallingConfig": {"allowedFunctionNames": ["f"]}},
        },
        "toolConfig.functionCallingConfig.allowedFunctionNames",
    ),
    ({"toolConfig": {"retrievalConfig": {}}}, "toolConfig.retrievalConfig"),
    ({"generationConfig": {"temperature": 3}}, "generationConfig.temperature"),
    ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
    ({"generationConfig": {"temprature": 1}}, "generationConfig.temprature"),
    ({"generationConfig": {"top_p": 1, "topP": 1}}, "generationConfig.topP"),
    ({"generationConfig": {"logprobs": 2}}, "generationConfig.logprobs"),
    (
        {"generationConfig": {"responseMimeType": "text/x.enum"}},
        "generationConfig.responseMimeType",
    ),
    (
        {"generationConfig": {"responseSchema": {"type": "OBJECT"}}},
        "generationConfig.responseMimeType",
    ),
    (
        {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}},
        "generationConfig.responseModalities[1]",
    ),
    (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "most"}}},
        "generationConfig.thinkingConfig.thinkingLevel",
    ),
    (
        {"generationConfig": {"thinkingConfig": {"thinkingLevel": "LOW", "thinkingBudget": 1}}},
        "generationConfig.thinkingConfig.thinkingLevel",
    ),
]


@pytest.mark.parametrize(
    ("fields", "param"), BAD, ids=lambda each: each if type(each) is str else ""
)
def test_what_is_wrong_is_told_by_its_name(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        inbound(**fields)
    assert caught.value.param == param
    assert caught.value.status == 400


def test_a_misspelt_setting_is_told_the_nearest():
    with pytest.raises(LLMInvalidRequestError, match="did you mean 'temperature'"):
        config(temprature=1)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "contents"),
        ({"contents": [USER], "tools": []}, "tools"),
        ({"contents": [USER], "generateContentRequest": {"contents": [USER]}}, "contents"),
    ],
)
def test_a_wrong_count_is_refused(fields, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        gemini.read_count_request(json.dumps(fields).encode())
    assert caught.value.param == param


@pytest.mark.parametrize(
    ("requests", "param"),
    [
        ([], "requests"),
        ([{}], "requests[0].content"),
        ([{"content": {"parts": [{"text": ""}]}}], "requests[0].content.parts[0].text"),
        (
            [{"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PIXEL}}]}}],
            "requests[0].content.parts[0].inlineData",
        ),
        (
            [
                {"content": {"parts": [{"text": "a"}]}, "taskType": "X"},
                {"content": {"parts": [{"text": "b"}]}},
            ],
            "requests[1].taskType",
        ),
        (
            [{"content": {"parts": [{"text": "a"}]}, "outputDimensionality": 0}],
            "requests[0].outputDimensionality",
        ),
        (
            [{"content": {"parts": [{"text": "a"}]}, "autoTruncate": True}],
            "requests[0].autoTruncate",
        ),
    ],
)
def test_a_wrong_request_for_vectors_is_refused(requests, param):
    with pytest.raises(LLMInvalidRequestError) as caught:
        gemini_embeddings.read_batch_request(json.dumps({"requests": requests}).encode())
    assert caught.value.param == param


# What we send


def test_settings_are_sent_under_their_names():
    sent = body(
        temperature=0.5,
        max_tokens=5,
        response_schema={"type": "object"},
        tools=(ToolSpec(name="f", strict=True),),
    )
    assert sent == {
        "contents": [USER],
        "generationConfig": {
            "temperature": 0.5,
            "maxOutputTokens": 5,
            "responseMimeType": "application/json",
            "responseJsonSchema": {"type": "object"},
        },
        "tools": [{"functionDeclarations": [{"name": "f", "description": ""}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "VALIDATED"}},
    }


def test_all_results_of_one_turn_are_sent_in_one_content():
    calls = tuple(ToolCall(name=f"f{i}", arguments_json="{}", call_id=f"c{i}") for i in range(2))
    said = (
        LLMMessage(role="assistant", content="", tool_calls=calls),
        LLMMessage(role="tool", content="5", tool_call_id="c0"),
        LLMMessage(role="tool", content='{"a":1}', tool_call_id="c1"),
        LLMMessage(role="system", content="Hurry."),
    )
    asked = LLMRequest(messages=(LLMMessage(role="user", content="go"), *said))
    contents = json.loads(gemini.write_request(asked, stream=False))["contents"]
    assert contents[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "f0", "response": {"output": "5"}, "id": "c0"}},
            {"functionResponse": {"name": "f1", "response": {"a": 1}, "id": "c1"}},
        ],
    }
    assert contents[3] == {"role": "user", "parts": [{"text": "Hurry."}]}


def test_what_cannot_be_said_is_refused_by_name():
    with pytest.raises(LLMCapabilityError, match="response_format"):
        body(response_format={"type": "grammar"})
    for messages in ((LLMMessage(role="system", content="a"),), ()):
        with pytest.raises(LLMInvalidRequestError) as caught:
            gemini.write_request(LLMRequest(messages=messages), stream=False)
        assert caught.value.param == "messages"
