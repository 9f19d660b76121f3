"""The page that says how each engine names what it tells: its table, made from the one we read by."""

from __future__ import annotations

from headrace.wire.engine_names import ENGINES, Figure, Share

# Our fields, their unit and meaning, and the metric of /metrics that has them.
FIELDS = {
    "running": ("requests", "computed now", "headrace_engine_requests_running"),
    "queued": ("requests", "waiting in the engine now", "headrace_engine_requests_waiting"),
    "batch_size": (
        "requests",
        "in one step of the engine, in the mean since it began",
        "headrace_engine_batch_size",
    ),
    "batch_occupancy": (
        "0 to 1",
        "share of the batch's places that are taken now",
        "headrace_engine_batch_occupancy",
    ),
    "cache_usage": (
        "0 to 1",
        "share of the cache of keys and values in use now",
        "headrace_engine_cache_usage",
    ),
    "prefix_hit_rate": (
        "0 to 1",
        "share of the prompts' tokens found in that cache, since the engine began",
        "headrace_engine_prefix_hit_rate",
    ),
    "prompt_tokens": (
        "tokens",
        "of all prompts since it began",
        "headrace_engine_prompt_tokens_total",
    ),
    "completion_tokens": (
        "tokens",
        "of all answers since it began",
        "headrace_engine_generation_tokens_total",
    ),
}

OPENING = """\
# How full the engines are

What runs and waits in an engine only it knows: other gateways and scripts may use it too. So the
gateway asks engines for their own metrics, and has them in one set of words, whatever the engine.
They are in [the snapshot](operations.md#the-page) (`lanes[].metrics`), on the page (a backend's
"engine says") and in `/metrics`, with the labels `backend` and `engine`; a
[route that chooses by load](configuration.md#routes-a-list) looks at `running` and `queued`.

| field | unit | meaning | in `/metrics` |
|---|---|---|---|
"""

MIDDLE = """
What an engine does not tell is `null` in the snapshot, and has no line in `/metrics`.

## When an engine is asked

- Only while somebody looks: an open page, a request for `/snapshot` or `/metrics`, a route that
  chooses by it. Then at most once a second, and nobody's request waits for it (`/snapshot` and
  `/metrics` do, for half a second at most).
- It has two seconds and 4 MiB to answer. One that does not answer, or not with metrics that are
  known here, is unknown, which is no error; it is asked again after ten seconds.
- What was told is forgotten after five seconds.
- With `server.workers`, the supervisor asks for the page and `/metrics`, and each worker for itself
  where its routes choose by it.

vLLM, SGLang, MAX, llama-server, TGI, Ollama and the engines in the box are asked where their
[provider's row](providers.md) says (`metrics_path`, and for MAX the port 8001, `metrics_port`). An
engine that the gateway starts is started with its metrics on, and asked while it runs; none is
started, or kept from being stopped, to find out. For any other place, and for a server of another
provider, name it:

```yaml
backends:
  - name: far
    base_url: http://10.0.0.7:8000/v1
    metrics_url: http://10.0.0.7:9090/metrics
  - name: other-gateway
    base_url: http://10.0.0.8:8000/v1
    metrics_url: http://10.0.0.8:8000/metrics
```

The backend's key is shown there only where it is the server that the key belongs to. SGLang has
metrics when it is started with `--enable-metrics`, llama-server with `--metrics`: write them where
you start it yourself.

## What each engine calls it

Where there are several, the first that is on the page counts; values for several replicas or
models are added up, shares are averaged. A load test reads the same names
([what the server told](load-report.md)).

"""

ENDING = """
## What to know of them

- **Checked on**: pages of llama-server (xllamacpp), vLLM 0.32 (CPU) and MAX 26.6 (CPU), as they
  were under load. SGLang, TGI, Ollama and the older names are after their documents, and have not
  been seen here.
- **MAX** counts a request that waits for its scheduler among those that run, since its HTTP server
  does; here it is not, where it tells how many wait. Of its queue and its cache it tells only what
  came of a batch since somebody last asked, so they are unknown while it has nothing to do.
- **llama-server**'s own prompt tokens leave out the cached ones; here they are in. Older builds tell
  no cached ones, newer builds no use of the cache.
- **Batch occupancy** needs the number of places, which no engine tells: it is there for the engines
  in the box, whose places are known.
- **The box**: llama.cpp tells the above; of OpenVINO the requests are known, all of them running.
- **Ollama** has a list of the models in memory at `/api/ps`, and nothing else: `loaded`, in the
  snapshot alone.
- **SGLang** without counters of cached tokens tells the share of its last batch.
"""


def engine_metrics_page(note: str) -> str:
    """The page, with the tables of names in it."""
    ours = [
        f"| `{field}` | {unit} | {meaning} | `{name}` |"
        for field, (unit, meaning, name) in FIELDS.items()
    ]
    named = [field for field in FIELDS if any(hasattr(each, field) for each in ENGINES)]
    theirs = []
    for engine in ENGINES:
        theirs += ["", f"### {engine.engine}", ""]
        theirs += [f"| field | [its names]({engine.source}) |", "|---|---|"]
        theirs += [
            f"| `{field}` | {'; or '.join(map(words, engine.named(field)))} |"
            for field in named
            if engine.named(field)
        ]
    heading = OPENING.replace("\n\n", f"\n\n{note}\n\n", 1)
    return (
        heading
        + "\n".join(ours)
        + "\n"
        + MIDDLE.rstrip()
        + "\n"
        + "\n".join(theirs)
        + "\n"
        + ENDING
    )


def words(figure: Figure) -> str:
    """How a figure is made of the engine's metrics."""
    if isinstance(figure, Share):
        whole = " + ".join(f"`{name}`" for name in figure.whole)
        part = " + ".join(f"`{name}`" for name in figure.part)
        return f"{part} / ({whole})" if len(figure.whole) > 1 else f"{part} / {whole}"
    return " + ".join(f"`{name}`" for name in figure.names)
