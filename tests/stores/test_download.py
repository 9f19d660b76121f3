"""Files by URI: they come whole and checked, however often the way is cut, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from gateway.served import environment
from headrace.contracts.errors import (
    LLMAuthError,
    LLMBadResponseError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMUnavailableError,
)
from headrace.net.transport import parse_url
from headrace.stores.credentials import Credentials
from headrace.stores.models.kept import KeptFiles
from headrace.stores.models.pull import Pull
from headrace.stores.models.reach import Reach, reach_of_environment
from headrace.stores.models.uri import read_uri
from stores.file_server import file_server

DATA = bytes(range(256)) * 300
NOBODY = Credentials(environment={}, dotenv=None, config=None, seed=None)
LOOPBACK = Reach(private_hosts=frozenset(["127.0.0.1"]), credentials=NOBODY)


class NoWait:
    """A clock on which every wait is over at once."""

    def __init__(self):
        self.waits = []

    def monotonic(self):
        return 0.0

    def wall(self):
        return 1_790_000_000.0

    async def sleep(self, seconds):
        self.waits.append(seconds)

    def call_later(self, seconds, do):
        raise NotImplementedError


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def pull(cache, uri, reach=LOOPBACK, progress=lambda *_: None, clock=None, **how):
    return Pull(KeptFiles(cache), reach, progress, clock=clock or NoWait()).get(
        read_uri(uri), **how
    )


@pytest.fixture
def server():
    with file_server() as serving:
        yield serving


@pytest.fixture
def known(server):
    """A file's URI with its hash."""
    return f"{server.put('/m/tiny.gguf', DATA)}#sha256={sha256(DATA)}"


def left(cache):
    return sorted(
        str(path.relative_to(cache))
        for path in cache.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    )


def test_a_file_is_kept_by_its_hash_and_asked_for_once(server, known, empty_cache):
    seen = []
    kept = pull(empty_cache, known, progress=lambda *told: seen.append(told))
    assert kept.path == str(empty_cache / "files" / sha256(DATA) / "tiny.gguf")
    assert (empty_cache / "files" / sha256(DATA) / "tiny.gguf").read_bytes() == DATA
    assert kept.sha256 == sha256(DATA)
    assert seen[-1] == ("Fetching tiny.gguf", len(DATA), len(DATA))
    assert pull(empty_cache, known) == kept
    assert server.paths() == ["/m/tiny.gguf"]
    assert not any(name.startswith("parts") for name in left(empty_cache))


def test_two_places_with_the_same_content_share_one_file(server, known, empty_cache):
    first = pull(empty_cache, known)
    second = pull(empty_cache, f"{server.put('/n/tiny.gguf', DATA)}#sha256={sha256(DATA)}")
    kept = KeptFiles(empty_cache)
    assert first.path == second.path
    assert not kept.remove(first)
    assert kept.find(read_uri(second.uri)) == second
    assert kept.remove(second)
    assert left(empty_cache) == []


@given(
    cuts=st.lists(st.integers(0, len(DATA)), max_size=6), etags=st.booleans(), ranges=st.booleans()
)
def test_a_download_that_is_cut_anywhere_goes_on_and_is_right(
    cuts, etags, ranges, tmp_path_factory
):
    cache = tmp_path_factory.mktemp("cache")
    with file_server() as server:
        server.cuts, server.etags, server.ranges = list(cuts), etags, ranges
        uri = f"{server.put('/tiny.gguf', DATA)}#sha256={sha256(DATA)}"
        for _ in range(4):  # a program that gave up is started again
            try:
                kept = pull(cache, uri)
                break
            except LLMUnavailableError:
                continue
        assert (cache / "files" / kept.sha256 / "tiny.gguf").read_bytes() == DATA
        if ranges:
            assert server.sent == len(DATA)


def test_a_later_process_goes_on_where_the_earlier_one_was_cut(server, known, empty_cache):
    server.cuts = [1000] + [0] * 6
    with pytest.raises(LLMUnavailableError):
        pull(empty_cache, known)
    assert pull(empty_cache, known).sha256 == sha256(DATA)
    assert server.asked[-1][1]["range"] == "bytes=1000-"
    assert server.sent == len(DATA)


def test_of_a_file_that_has_changed_meanwhile_the_new_one_is_fetched_whole(server, empty_cache):
    new = DATA[::-1]
    server.moved["/o/n/resolve/main/a.gguf"] = (f"{server.url}/blob", {})
    server.put("/blob", DATA)
    hub = evolve(LOOPBACK, hub=parse_url(server.url))
    server.cuts = [5000] + [0] * 6
    with pytest.raises(LLMUnavailableError):
        pull(empty_cache, "hf:o/n/a.gguf", hub)
    server.put("/blob", new)
    assert pull(empty_cache, "hf:o/n/a.gguf", hub).sha256 == sha256(new)
    assert server.asked[-1][1]["if-range"]


def test_a_part_that_was_spoilt_on_the_disk_is_fetched_again(server, known, empty_cache):
    server.cuts = [1000] + [0] * 6
    with pytest.raises(LLMUnavailableError):
        pull(empty_cache, known)
    part = KeptFiles(empty_cache).part(read_uri(known))
    part.write_bytes(b"?" * 1000)
    assert pull(empty_cache, known).sha256 == sha256(DATA)


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"uri": "x"}', b"null"])
def test_a_part_whose_note_cannot_be_read_is_nobody_s(server, known, empty_cache, note):
    part = KeptFiles(empty_cache).part(read_uri(known))
    part.parent.mkdir()
    part.write_bytes(b"?" * 1000)
    part.with_name(f"{part.name}.json").write_bytes(note)
    assert pull(empty_cache, known).sha256 == sha256(DATA)


def test_a_file_with_another_hash_is_refused_and_removed(server, empty_cache):
    uri = f"{server.put('/tiny.gguf', DATA)}#sha256={'0' * 64}"
    with pytest.raises(LLMBadResponseError) as caught:
        pull(empty_cache, uri)
    assert "0" * 64 in str(caught.value)
    assert sha256(DATA) in str(caught.value)
    assert left(empty_cache) == []
    assert len(server.asked) == 1


def test_a_server_that_brings_nothing_is_given_up_after_a_few_longer_waits(
    server, known, empty_cache
):
    server.cuts = [0] * 20
    clock = NoWait()
    with pytest.raises(LLMUnavailableError):
        pull(empty_cache, known, clock=clock)
    assert len(server.asked) == 6
    assert clock.waits == sorted(clock.waits)
    assert len(clock.waits) == 5


def test_what_a_server_refuses_for_now_is_asked_for_again(server, known, empty_cache):
    server.status["/m/tiny.gguf"] = [503, 500, 429]
    assert pull(empty_cache, known).sha256 == sha256(DATA)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, LLMAuthError),
        (403, LLMAuthError),
        (404, LLMModelNotFoundError),
        (400, LLMBadResponseError),
    ],
)
def test_what_a_server_refuses_for_good_is_asked_for_once(server, known, empty_cache, status, kind):
    server.status["/m/tiny.gguf"] = [status, status]
    with pytest.raises(kind, match=str(status)) as caught:
        pull(empty_cache, known)
    assert caught.value.provider_message == "not now"
    assert len(server.asked) == 1


def test_a_server_that_has_no_such_bytes_of_any_file_is_given_up(server, known, empty_cache):
    server.status["/m/tiny.gguf"] = [416] * 50
    with pytest.raises(LLMBadResponseError, match="Content-Range"):
        pull(empty_cache, known)
    assert len(server.asked) == 1


def test_more_than_the_disk_holds_is_refused_before_it_is_fetched(server, known, empty_cache):
    server.length = 1 << 60
    with pytest.raises(LLMUnavailableError, match="HEADRACE_CACHE") as caught:
        pull(empty_cache, known)
    assert str(1 << 60) in str(caught.value)
    assert len(server.asked) == 1


# The Hugging Face hub.


@pytest.fixture
def hub(server):
    """A repository with one large file, which the hub sends on to its store for, as it does."""
    server.moved["/org/model/resolve/main/q4/tiny.gguf"] = (
        f"{server.url}/store/blob?signed=yes",
        {"X-Linked-ETag": f'"{sha256(DATA)}"', "X-Repo-Commit": "c0ffee"},
    )
    server.put("/store/blob", DATA)
    return evolve(LOOPBACK, hub=parse_url(server.url))


def test_a_file_of_the_hub_is_checked_by_what_the_hub_says_of_it(server, hub, empty_cache):
    kept = pull(empty_cache, "hf:org/model/q4/tiny.gguf", hub)
    assert (kept.sha256, kept.revision) == (sha256(DATA), "c0ffee")
    assert kept.path.endswith("/tiny.gguf")
    server.put("/store/blob", DATA[:-1] + b"?")
    with pytest.raises(LLMBadResponseError, match="expected"):
        pull(empty_cache, "hf:org/model/q4/tiny.gguf", hub, again=True)


def test_a_hash_that_the_hub_contradicts_is_refused_before_the_download(server, hub, empty_cache):
    with pytest.raises(LLMBadResponseError, match="giver"):
        pull(empty_cache, f"hf:org/model/q4/tiny.gguf#sha256={'0' * 64}", hub)
    assert left(empty_cache) == []


def test_a_revision_is_asked_for_by_its_name(server, hub, empty_cache):
    server.put("/org/model/resolve/refs%2Fpr%2F1/a.gguf", DATA)
    assert pull(empty_cache, "hf:org/model@refs%2Fpr%2F1/a.gguf", hub).sha256 == sha256(DATA)


def test_the_token_is_shown_to_the_hub_and_to_nobody_else(server, hub, empty_cache):
    with file_server() as store:
        store.put("/blob", DATA)
        server.moved["/org/model/resolve/main/a.gguf"] = (f"{store.url}/blob", {})
        token = Credentials(environment={"HF_TOKEN": "hf_x"}, dotenv=None, config=None, seed=None)
        pull(empty_cache, "hf:org/model/a.gguf", evolve(hub, credentials=token))
        assert server.asked[-1][1]["authorization"] == "Bearer hf_x"
        assert "authorization" not in store.asked[-1][1]


def test_a_gated_file_says_which_key_would_open_it(server, hub, empty_cache):
    server.status["/org/model/resolve/main/a.gguf"] = [401]
    with pytest.raises(LLMAuthError, match="HF_TOKEN"):
        pull(empty_cache, "hf:org/model/a.gguf", hub)


# Where nobody may lead us.


def test_a_private_host_is_asked_only_where_it_was_named(server, known, empty_cache):
    with pytest.raises(LLMInvalidRequestError, match="HEADRACE_PRIVATE_HOSTS"):
        pull(empty_cache, known, Reach(credentials=NOBODY))
    assert server.asked == []


@pytest.mark.parametrize("to", ["http://localhost:{port}/x", "http://169.254.169.254/latest/"])
def test_nobody_sends_us_on_into_a_private_network(server, hub, empty_cache, to):
    port = server.url.rpartition(":")[2]
    server.moved["/org/model/resolve/main/a.gguf"] = (to.format(port=port), {})
    with pytest.raises(LLMInvalidRequestError, match="private network"):
        pull(empty_cache, "hf:org/model/a.gguf", hub)
    assert server.paths() == ["/org/model/resolve/main/a.gguf"]


def test_nobody_sends_us_on_without_tls(server, hub, empty_cache):
    server.moved["/org/model/resolve/main/a.gguf"] = ("http://files.example.com/x", {})
    with pytest.raises(LLMInvalidRequestError, match="TLS"):
        pull(empty_cache, "hf:org/model/a.gguf", hub)


def test_sending_on_and_on_comes_to_an_end(server, hub, empty_cache):
    server.moved["/org/model/resolve/main/a.gguf"] = ("/org/model/resolve/main/a.gguf", {})
    with pytest.raises(LLMBadResponseError, match="sends on"):
        pull(empty_cache, "hf:org/model/a.gguf", hub)


def test_the_environment_says_what_may_be_asked():
    reach = reach_of_environment(
        {
            "HF_ENDPOINT": "https://mirror.lan/hf/",
            "IPFS_GATEWAY": "http://127.0.0.1:8080",
            "AWS_ENDPOINT_URL": "http://minio:9000",
            "HEADRACE_PRIVATE_HOSTS": "Files.LAN, [::1],",
        }
    )
    assert reach.hub.target == "/hf"
    assert reach.askable == {"mirror.lan", "127.0.0.1", "minio", "files.lan", "::1"}


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "IPFS_GATEWAY", "AWS_ENDPOINT_URL_S3"])
def test_an_address_that_is_none_is_refused_by_its_variable(name):
    with pytest.raises(LLMInvalidRequestError, match=name):
        reach_of_environment({name: "ftp://x"})


# Several at once.

PULLER = """
import signal, sys
# Whoever runs the tests in the background may have left us SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
from headrace.stores.models import ModelStore
labels = []
path = ModelStore().locate(sys.argv[1], lambda what, *_: what in labels or labels.append(what))
print(path, *labels, sep="\\n")
"""


@contextmanager
def started(known, cache):
    process = subprocess.Popen(
        [sys.executable, "-c", PULLER, known],
        env=environment(HEADRACE_CACHE=str(cache), HEADRACE_PRIVATE_HOSTS="127.0.0.1"),
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def test_of_two_processes_that_want_one_file_one_fetches_and_the_other_waits(
    server, known, empty_cache
):
    server.hold = threading.Event()
    with started(known, empty_cache) as first:
        assert server.held.wait(60)
        with started(known, empty_cache) as second:
            with pytest.raises(subprocess.TimeoutExpired):
                second.wait(0.5)
            server.hold.set()
            said = [each.communicate(timeout=60)[0].splitlines() for each in (first, second)]
    assert said[0][0] == said[1][0]
    assert len(server.asked) == 1


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_however_a_process_ends_what_has_come_is_kept(server, empty_cache, end):
    data = DATA * 20
    known = f"{server.put('/big.gguf', data)}#sha256={sha256(data)}"
    server.hold, server.cuts = threading.Event(), [len(data) // 2]
    with started(known, empty_cache) as process:
        assert server.held.wait(60)
        part = KeptFiles(empty_cache).part(read_uri(known))
        while not part.is_file() or part.stat().st_size < len(data) // 2:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(end)
        process.communicate(timeout=60)
        assert process.returncode != 0
    assert part.stat().st_size == len(data) // 2
    server.hold.set()
    server.hold = None
    assert pull(empty_cache, known).sha256 == sha256(data)
    assert server.asked[-1][1]["range"] == f"bytes={len(data) // 2}-"


def test_in_a_running_event_loop_the_way_without_waiting_is_named(known, empty_cache):
    async def main():
        pull(empty_cache, known)

    with pytest.raises(RuntimeError, match="find_or_fetch"):
        asyncio.run(main())


def test_a_note_that_is_no_json_is_a_file_that_is_not_here(server, known, empty_cache):
    pull(empty_cache, known)
    for note in (empty_cache / "uris").glob("*.json"):
        note.write_text("{")
    assert KeptFiles(empty_cache).all() == []
    assert pull(empty_cache, known).sha256 == sha256(DATA)


def test_a_cache_that_was_moved_is_the_same_cache(server, known, empty_cache, tmp_path):
    pull(empty_cache, known)
    moved = empty_cache.rename(tmp_path / "moved")
    kept = KeptFiles(moved).find(read_uri(known))
    assert kept.path == str(moved / "files" / sha256(DATA) / "tiny.gguf")
    assert json.loads(next((moved / "uris").glob("*.json")).read_text())["uri"] == kept.uri
