"""What a load test is asked for: the target, when requests arrive, what they say, when it ends.

What came of it is in ``load_report``. Rates are requests a second, lengths are tokens, times are
seconds unless a name ends in ``_ms``.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal, TypeAlias

from attrs import field, frozen

Kind: TypeAlias = Literal["chat", "completions", "responses", "messages", "embeddings", "rerank"]
"""Which of the target's ways in is used: the first four generate text and may stream."""

Scenario: TypeAlias = Literal["short", "medium", "long", "mixed"]

# Arrivals: when requests are meant to be sent.


@frozen(kw_only=True)
class Closed:
    """So many callers, each of whom asks again when the last answer has come.

    They begin one after the other over ``ramp_s``. Between an answer and the next question each
    waits ``think_s`` on average (exponentially distributed). A closed loop slows down with the
    server and says so in its report.
    """

    concurrency: int = 1
    ramp_s: float = 0.0
    think_s: float = 0.0


@frozen(kw_only=True)
class Constant:
    """One request every 1 / ``rate`` seconds, whatever the server does."""

    rate: float


@frozen(kw_only=True)
class Poisson:
    """Independent arrivals: exponentially distributed gaps of 1 / ``rate`` seconds on average."""

    rate: float


@frozen(kw_only=True)
class Gamma:
    """Gamma distributed gaps: ``burstiness`` is the shape; 1 is Poisson, below 1 comes in bursts."""

    rate: float
    burstiness: float = 1.0


@frozen(kw_only=True)
class Bursts:
    """``size`` requests that start together, every ``every_s`` seconds."""

    size: int
    every_s: float


@frozen(kw_only=True)
class Ramp:
    """A rate that goes evenly from ``begin`` to ``end`` in ``over_s`` seconds and stays there."""

    begin: float
    end: float
    over_s: float
    poisson: bool = True


@frozen(kw_only=True)
class Steps:
    """Each of ``rates`` for ``each_s`` seconds, one after the other; then it is over."""

    rates: tuple[float, ...]
    each_s: float
    poisson: bool = True


@frozen(kw_only=True)
class Replay:
    """The arrivals (and the lengths) of a trace: its times divided by ``speed``.

    ``form`` is ``mooncake`` (JSONL), ``burstgpt`` or ``azure`` (CSV), ``records`` (the JSONL of
    call records that a gateway writes), or ``auto``: found out by looking.
    """

    path: PurePath
    form: Literal["auto", "mooncake", "burstgpt", "azure", "records"] = "auto"
    speed: float = 1.0


Arrivals: TypeAlias = Closed | Constant | Poisson | Gamma | Bursts | Ramp | Steps | Replay

# Workload: what the requests say.


@frozen(kw_only=True)
class Length:
    """A distribution of whole numbers, in tokens.

    ``constant``: always ``mean``. ``normal``: with standard deviation ``spread``. ``lognormal``:
    of mean ``mean`` whose logarithm has standard deviation ``spread``. ``uniform``: from
    ``least`` to ``most``. All are cut to ``least`` and ``most`` where those are given.
    """

    shape: Literal["constant", "normal", "lognormal", "uniform"] = "constant"
    mean: float = 128.0
    spread: float = 0.0
    least: int = 1
    most: int | None = None


@frozen(kw_only=True)
class Scenarios:
    """The ready-made conversations: short, medium, long ones, or a mixture of all three."""

    name: Scenario = "mixed"


@frozen(kw_only=True)
class Synthetic:
    """Made-up text of set lengths, counted by the model's tokenizer where there is one.

    ``prefix_tokens`` of each prompt are the same for all of one of ``prefixes`` groups, so that a
    server's prefix cache has something to find. ``images`` pictures of ``image_px`` squared go
    with each prompt. Reranking has ``documents`` of the ``input`` length to each query.
    """

    input: Length = Length(mean=256.0)
    output: Length = Length(mean=128.0)
    prefix_tokens: int = 0
    prefixes: int = 1
    turns: int = 1
    images: int = 0
    image_px: int = 512
    documents: int = 8


@frozen(kw_only=True)
class Prompts:
    """Prompts of a file, in its order or shuffled: ShareGPT's JSON, or JSONL.

    A line of JSONL is an object with ``messages``, ``prompt``, ``text``, ``input`` or ``query`` and
    ``documents``; it may have ``max_tokens`` (or ``output_length``) and, for several turns of one
    conversation, ``conversation``.
    """

    path: PurePath
    output: Length | None = None
    shuffle: bool = False


Workload: TypeAlias = Scenarios | Synthetic | Prompts


@frozen(kw_only=True)
class Promise:
    """A service level objective: the percentile ``p`` of a metric stays below ``below``.

    ``metric`` is one of ``ttft``, ``tpot``, ``itl``, ``latency`` (in ms) or ``errors`` (a share from
    0 to 1, where ``p`` is None). ``p`` is a fraction: 0.99 for p99. ``text`` is how it was written.
    """

    metric: Literal["ttft", "tpot", "itl", "latency", "errors"]
    p: float | None
    below: float
    text: str


@frozen(kw_only=True)
class LoadPlan:
    """A whole load test. ``url`` is the target's base, with or without its ``/v1``.

    It ends after ``requests`` requests or ``duration_s`` seconds, whichever comes first; then those
    in flight have ``drain_s``. The first ``warmup_s`` seconds or ``warmup_requests`` requests, and
    what is intended in the last ``cooldown_s`` seconds, are left out of the figures. ``at_most`` caps
    how many are in flight in an open loop: the rest waits, and its waiting is in the figures.
    ``most_errors`` ends the run at so many failures, ``most_error_share`` at that share of at least
    a hundred. ``key_env`` names the environment variable with the API key: the plan itself holds no
    secret. ``output_exact`` asks the server to ignore its end token (vLLM's ``ignore_eos``), so that
    answers have just the length that was asked for. ``tokenizer`` is what counts made-up prompts: a
    GGUF file, a known model or a name of tiktoken's; without it, the best that can be found.
    ``metrics`` names what the server tells of itself at ``metrics_url`` and is wanted too, beside
    what is always looked at.
    """

    url: str
    model: str | None = None
    kind: Kind = "chat"
    stream: bool = True
    arrivals: Arrivals = Closed()
    workload: Workload = Scenarios()
    requests: int | None = None
    duration_s: float | None = None
    drain_s: float = 30.0
    warmup_s: float = 0.0
    warmup_requests: int = 0
    cooldown_s: float = 0.0
    at_most: int | None = None
    timeout_s: float = 120.0
    most_errors: int | None = None
    most_error_share: float | None = None
    seed: int = 0
    promises: tuple[Promise, ...] = ()
    workers: int = 1
    temperature: float | None = None
    output_exact: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    extra_body: str | None = None
    key_env: str | None = None
    insecure: bool = False
    ca_file: PurePath | None = None
    metrics_url: str | None = None
    metrics: tuple[str, ...] = ()
    kernel_times: bool = True
    records: PurePath | None = None
    tokenizer: str | None = None


@frozen(kw_only=True)
class Asked:
    """One request as the workload means it, before it is written in the target's format.

    ``messages`` is plain JSON in OpenAI's chat form; ``prompt`` is for completions, embeddings
    (``inputs`` where there are several) and reranking (the query, with ``documents``).
    ``input_tokens`` is None where nobody counted, and ``counted`` says whether the model's own
    tokenizer did. ``conversation`` and ``turn`` tie the turns of one conversation together: a later
    turn is sent after the answer to the one before, ``after_s`` later, and its ``messages`` are only
    what is new.
    """

    messages: tuple[dict[str, object], ...] = ()
    prompt: str | None = None
    inputs: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    output_tokens: int | None = None
    input_tokens: int | None = None
    counted: bool = False
    scenario: str | None = None
    conversation: int | None = None
    turn: int = 0
    turns: int = 1
    after_s: float = 0.0
