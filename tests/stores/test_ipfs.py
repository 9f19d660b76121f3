"""Files from IPFS: every block is checked, so that it does not matter who hands them over."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import (
    LLMBadResponseError,
    LLMCapabilityError,
    LLMError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMUnavailableError,
)
from headrace.net.transport import parse_url
from headrace.stores.models.cid import read_cid
from headrace.stores.models.kept import KeptFiles
from headrace.stores.models.unixfs import read_node
from headrace.stores.models.uri import read_uri
from stores.file_server import file_server
from stores.ipfs_blocks import DAG_PB, RAW, Blocks, base32, base58, cid_v1, number_field
from stores.test_download import LOOPBACK, NoWait, left, pull

DATA = bytes(range(251)) * 40


class Slow(NoWait):
    """A clock on which waits are over once others had time to do what they do."""

    async def sleep(self, seconds):
        await asyncio.sleep(0.2)


def serve(server, blocks):
    """A gateway of these blocks; every answer to ``/ipfs/CID`` is that block."""
    for name, block in blocks.by_name.items():
        server.put(f"/ipfs/{name}", block)
    return evolve(LOOPBACK, ipfs=parse_url(server.url))


@pytest.fixture
def server():
    with file_server() as serving:
        yield serving


@given(
    data=st.binary(max_size=3000),
    piece=st.integers(1, 700),
    fan=st.integers(2, 5),
    raw_leaves=st.booleans(),
    version=st.sampled_from([0, 1]),
)
def test_a_file_comes_whole_however_it_is_cut_into_blocks(
    data, piece, fan, raw_leaves, version, tmp_path_factory
):
    blocks = Blocks(raw_leaves=raw_leaves, version=version)
    cid = blocks.file(data, max(piece, len(data) // 60), fan)
    text = base58(cid) if cid[0] == 0x12 else base32(cid)
    with file_server() as server:
        reach = serve(server, blocks)
        kept = pull(tmp_path_factory.mktemp("cache"), f"ipfs:{text}", reach)
    assert kept.sha256 == hashlib.sha256(data).hexdigest()
    assert kept.size_bytes == len(data)


def test_a_file_is_found_in_its_folders_by_name(server, empty_cache):
    blocks = Blocks()
    file = blocks.file(DATA, 1000)
    root = blocks.folder({"models": blocks.folder({"My Model.gguf": file}), "z": file})
    kept = pull(empty_cache, f"ipfs:{base32(root)}/models/My%20Model.gguf", serve(server, blocks))
    assert kept.path.endswith("/My Model.gguf")
    assert kept.sha256 == hashlib.sha256(DATA).hexdigest()
    assert all(path.endswith("?format=raw") for path in server.paths())


def test_a_folder_without_that_name_says_so(server, empty_cache):
    blocks = Blocks()
    root = blocks.folder({"a.gguf": blocks.file(DATA, 1000)})
    with pytest.raises(LLMModelNotFoundError, match=r"b\.gguf"):
        pull(empty_cache, f"ipfs:{base32(root)}/b.gguf", serve(server, blocks))


def test_a_folder_itself_is_refused_with_the_names_in_it(server, empty_cache):
    blocks = Blocks()
    root = blocks.folder({"a.gguf": blocks.file(DATA, 1000)})
    with pytest.raises(LLMInvalidRequestError, match=r"a\.gguf"):
        pull(empty_cache, f"ipfs:{base32(root)}", serve(server, blocks))


@pytest.mark.parametrize("victim", [0, 1, -1])
def test_a_gateway_that_lies_about_a_block_is_refused_and_nothing_of_the_lie_is_kept(
    server, empty_cache, victim
):
    blocks = Blocks()
    cid = base32(blocks.file(DATA, 1000))
    reach = serve(server, blocks)
    name = list(blocks.by_name)[victim]
    server.put(f"/ipfs/{name}", blocks.by_name[name] + b"!")
    with pytest.raises(LLMBadResponseError, match="not the one asked for"):
        pull(empty_cache, f"ipfs:{cid}", reach)
    assert KeptFiles(empty_cache).all() == []
    part = KeptFiles(empty_cache).part(read_uri(f"ipfs:{cid}"))
    held = part.read_bytes() if part.is_file() else b""
    assert DATA.startswith(held)
    server.put(f"/ipfs/{name}", blocks.by_name[name])
    assert pull(empty_cache, f"ipfs:{cid}", reach).sha256 == hashlib.sha256(DATA).hexdigest()


def test_blocks_that_are_here_and_right_are_not_asked_for_again(server, empty_cache):
    blocks = Blocks()
    cid = base32(blocks.file(DATA, 1000, fan=20))
    reach = serve(server, blocks)
    last = list(blocks.by_name)[9]
    server.status[f"/ipfs/{last}"] = [500] * 6
    with pytest.raises(LLMUnavailableError):
        pull(empty_cache, f"ipfs:{cid}", reach)
    server.asked.clear()
    assert pull(empty_cache, f"ipfs:{cid}", reach).sha256 == hashlib.sha256(DATA).hexdigest()
    # The root, the one that was missing, and the one behind it that nobody had written.
    assert len(server.asked) == 3


def test_a_part_that_was_spoilt_on_the_disk_is_mended(server, empty_cache):
    blocks = Blocks()
    cid = base32(blocks.file(DATA, 1000))
    reach = serve(server, blocks)
    part = KeptFiles(empty_cache).part(read_uri(f"ipfs:{cid}"))
    part.parent.mkdir()
    part.write_bytes(DATA[:3000] + b"?" * 4000 + DATA[7000:] + b"and more")
    assert pull(empty_cache, f"ipfs:{cid}", reach).sha256 == hashlib.sha256(DATA).hexdigest()
    assert (empty_cache / "parts").is_dir()
    assert [name for name in left(empty_cache) if name.startswith("parts")] == []


def test_a_hash_that_was_given_too_is_held(server, empty_cache):
    blocks = Blocks()
    cid = base32(blocks.file(DATA, 1000))
    with pytest.raises(LLMBadResponseError, match="0" * 64):
        pull(empty_cache, f"ipfs:{cid}#sha256={'0' * 64}", serve(server, blocks))
    assert left(empty_cache) == []


def test_what_nobody_has_is_told_by_its_block(server, empty_cache):
    blocks = Blocks()
    cid = base32(blocks.file(DATA, 1000))
    gone = list(blocks.by_name)[3]
    reach = serve(server, blocks)
    del server.files[f"/ipfs/{gone}"]
    with pytest.raises(LLMModelNotFoundError, match=gone):
        pull(empty_cache, f"ipfs:{cid}", reach)


def test_of_two_things_wrong_the_first_in_the_file_is_told(server, empty_cache):
    blocks = Blocks()
    root = blocks.file(DATA[:4000], 1000)
    first, *_, last = (base32(cid_v1(RAW, DATA[at : at + 1000])) for at in range(0, 4000, 1000))
    reach = serve(server, blocks)
    server.put(f"/ipfs/{first}", b"a lie")
    # The first is asked for again, while the last is known already to be nowhere.
    server.status[f"/ipfs/{first}"] = [503]
    del server.files[f"/ipfs/{last}"]
    with pytest.raises(LLMBadResponseError, match=first):
        pull(empty_cache, f"ipfs:{base32(root)}", reach, clock=Slow())


def test_a_file_whose_blocks_contradict_its_sizes_is_refused(server, empty_cache):
    blocks = Blocks()
    wrong = blocks.node([(blocks.leaf(b"abc"), 3), (blocks.leaf(b"defg"), 5)])
    with pytest.raises(LLMBadResponseError, match="expected 5"):
        pull(empty_cache, f"ipfs:{base32(wrong)}", serve(server, blocks))


@pytest.mark.parametrize(("kind", "said"), [(4, "symbolic link"), (5, "shards"), (9, "unknown")])
def test_what_is_neither_file_nor_folder_is_refused_by_name(server, empty_cache, kind, said):
    blocks = Blocks()
    root = blocks.folder({"a": blocks.leaf(b"x")}, kind)
    with pytest.raises(LLMCapabilityError, match=said):
        pull(empty_cache, f"ipfs:{base32(root)}/a", serve(server, blocks))


# CIDs, as others write them.


def test_the_cids_of_the_specifications_are_read():
    # An empty folder and "hello world" in raw, as kubo and the documents name them.
    empty = read_cid("QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn")
    assert str(empty) == "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"
    assert empty.names(b"\n\x02\x08\x01")
    assert read_node(empty, b"\n\x02\x08\x01").kind == "folder"
    hello = read_cid("bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e")
    assert hello.codec == RAW
    assert hello.names(b"hello world")
    assert read_cid(f"z{base58(cid_v1(RAW, b'hello world'))}") == hello
    assert read_cid(str(hello).upper()) == hello


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (0x00, "identity"),
        (0x11, "sha1"),
        (0x13, "sha2-512"),
        (0x1E, "blake3"),
        (0xB220, "blake2b-256"),
    ],
)
def test_another_hash_is_refused_by_its_name(function, name):
    from stores.ipfs_blocks import varint

    cid = b"\x01" + varint(RAW) + varint(function) + varint(32) + b"0" * 32
    with pytest.raises(LLMCapabilityError, match=f"{name}.*sha2-256"):
        read_cid(base32(cid))


@given(st.text(max_size=70))
def test_any_text_is_a_cid_or_refused(text):
    try:
        read_cid(text)
    except (LLMInvalidRequestError, LLMCapabilityError):
        return


@given(st.binary(max_size=200))
def test_any_bytes_are_a_block_or_refused(data):
    cid = read_cid(base32(cid_v1(DAG_PB, data)))
    try:
        read_node(cid, data)
    except (LLMBadResponseError, LLMCapabilityError):
        return


def test_a_block_in_another_codec_is_refused_by_its_name():
    cid = read_cid(base32(cid_v1(0x71, b"\xa0")))
    with pytest.raises(LLMError, match="dag-cbor"):
        read_node(cid, b"\xa0")


def test_a_block_that_ends_within_a_field_is_refused():
    broken = number_field(1, 2) + b"\x0a\x7f"
    with pytest.raises(LLMBadResponseError, match="dag-pb"):
        read_node(read_cid(base32(cid_v1(DAG_PB, broken))), broken)
