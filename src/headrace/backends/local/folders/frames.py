"""What we and the child of a folder's engine say to each other; the frames are ``net.frames``."""

from __future__ import annotations

from typing import Any, TypeAlias

from msgspec import Struct


class Conversation(Struct, array_like=True, frozen=True, tag="conversation"):
    """A prompt that the model's chat template makes of ``messages``, in the words of templates.

    ``more`` are further variables of the template. Where it ``continues``, the last message is the
    beginning of the answer.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    more: dict[str, Any] = {}
    continues: bool = False


class Text(Struct, array_like=True, frozen=True, tag="text"):
    """A prompt as it is written."""

    text: str


class Tokens(Struct, array_like=True, frozen=True, tag="tokens"):
    """A prompt in token ids."""

    ids: list[int]


Prompt: TypeAlias = Conversation | Text | Tokens


class Sampling(Struct, frozen=True, omit_defaults=True):
    """How each next token is chosen; what is ``None`` is as the model's folder says.

    ``alternatives`` is how many others are told beside each token with its log probability; with
    -1 no log probabilities are told. ``grammar`` is llguidance's form of Lark.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int | None = None
    alternatives: int = -1
    grammar: str | None = None
    ignore_eos: bool = False


class Ask(Struct, array_like=True, frozen=True, tag="ask"):
    """Write ``answers`` answers to a prompt, of at most ``max_tokens`` tokens each."""

    call_id: int
    prompt: Prompt
    sampling: Sampling
    stop: list[str]
    max_tokens: int | None = None
    answers: int = 1


class Count(Struct, array_like=True, frozen=True, tag="count"):
    """Tell how many tokens a prompt has."""

    call_id: int
    prompt: Prompt


class Embed(Struct, array_like=True, frozen=True, tag="embed"):
    """Make one vector of each input; the first is the caller's ``begin``-th."""

    call_id: int
    inputs: list[str | list[int]]
    begin: int = 0


class Score(Struct, array_like=True, frozen=True, tag="score"):
    """Tell what a classifier says to each text, or pair of texts.

    With ``truncate`` one that is too long is cut, the second of a pair where it is one. ``raw``
    asks for the model's own scores instead of probabilities; ``None`` leaves that to its folder. Of
    a pair's second text at most ``most_tokens`` are read. The first is the caller's ``begin``-th.
    """

    call_id: int
    texts: list[str | tuple[str, str]]
    begin: int = 0
    truncate: bool = False
    raw: bool | None = None
    most_tokens: int | None = None


class Cancel(Struct, array_like=True, frozen=True, tag="cancel"):
    """Nobody wants to hear of that call any more; what of it is under way may still come."""

    call_id: int


class Hello(Struct, array_like=True, frozen=True, tag="hello"):
    """The first message of a connection: which model there is, and what it can do.

    ``kind`` is the name of its row in ``kinds``. ``slots`` is how many answers it writes at once.
    ``dimensions`` is how long its vectors are, ``labels`` are those of a classifier. ``tells_tools`` says whether its chat template puts
    tools into the prompt, ``reasons`` whether it speaks of the marks around a model's reasoning.
    ``fingerprint`` names the engine's build.
    """

    kind: str
    context_tokens: int
    slots: int
    fingerprint: str
    dimensions: int | None = None
    has_template: bool = False
    tells_tools: bool = False
    labels: list[str] = []
    reasons: bool = False


Logprob: TypeAlias = tuple[bytes, float, list[tuple[bytes, float]]]
"""A token's bytes, its log probability, and the same of the likeliest tokens in its place."""


class Output(Struct, array_like=True, frozen=True):
    """What one step brought for the answer at ``place`` of a call.

    ``tokens`` is how many tokens it has now. ``reason`` comes with the last one, and
    ``stopped_by`` where that is a stop string.
    """

    call_id: int
    place: int
    text: str
    tokens: int
    logprobs: list[Logprob] = []
    reason: str | None = None
    stopped_by: str | None = None


class Begun(Struct, array_like=True, frozen=True, tag="begun"):
    """A prompt was taken, and has so many tokens; whether it ends inside of the model's reasoning."""

    call_id: int
    prompt_tokens: int
    thinks: bool = False


class Step(Struct, array_like=True, frozen=True, tag="step"):
    """What one step brought; one that only read prompts brings nothing, but tells that it goes on.

    ``running`` answers are being written, ``waiting`` wait for a place.
    """

    outputs: list[Output]
    running: int = 0
    waiting: int = 0


class Counted(Struct, array_like=True, frozen=True, tag="counted"):
    """How many tokens the prompt has."""

    call_id: int
    tokens: int


class Vectors(Struct, array_like=True, frozen=True, tag="vectors"):
    """The vectors, one after the other, as little-endian 32-bit floats."""

    call_id: int
    floats: bytes
    dimensions: int
    tokens: int


class Scores(Struct, array_like=True, frozen=True, tag="scores"):
    """The scores of each text, one a label."""

    call_id: int
    scores: list[list[float]]
    tokens: int


class Failed(Struct, array_like=True, frozen=True, tag="failed"):
    """A call that came to nothing; ``error`` is the name of a class of ``contracts.errors``."""

    call_id: int
    error: str
    message: str
    param: str | None = None
    code: str | None = None


class Broken(Struct, array_like=True, frozen=True, tag="broken"):
    """A step failed in a way that the engine does not survive: the child ends after this."""

    message: str


ToChild: TypeAlias = Ask | Count | Embed | Score | Cancel
FromChild: TypeAlias = Hello | Begun | Step | Counted | Vectors | Scores | Failed | Broken
