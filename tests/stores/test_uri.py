"""Model files by URI: each form says what it names, and what is none of them says what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.contracts.errors import LLMCapabilityError, LLMInvalidRequestError
from headrace.stores.models import is_uri
from headrace.stores.models.pypi import WheelMember
from headrace.stores.models.schemes import SCHEMES
from headrace.stores.models.uri import HubFile, S3Object, read_uri

HASH = "ab" * 32


@pytest.mark.parametrize(
    ("text", "place", "name"),
    [
        ("file:/m/a.gguf", Path("/m/a.gguf"), "a.gguf"),
        ("file:///m/My%20Model.gguf", Path("/m/My Model.gguf"), "My Model.gguf"),
        ("file://localhost/m/a.gguf", Path("/m/a.gguf"), "a.gguf"),
        ("file:a.gguf", Path("a.gguf"), "a.gguf"),
        ("file:~/a.gguf", Path("~/a.gguf").expanduser(), "a.gguf"),
        (
            "hf:org/model/q4/a.gguf",
            HubFile(repository="org/model", revision="main", path="q4/a.gguf"),
            "a.gguf",
        ),
        (
            "hf:org/model@v1.0/a.gguf",
            HubFile(repository="org/model", revision="v1.0", path="a.gguf"),
            "a.gguf",
        ),
        (
            "hf:org/model@refs%2Fpr%2F1/a b.gguf",
            HubFile(repository="org/model", revision="refs/pr/1", path="a b.gguf"),
            "a b.gguf",
        ),
        ("s3://bucket/a/b c.gguf", S3Object(bucket="bucket", key="a/b c.gguf"), "b c.gguf"),
        (
            "pypi:name==1.0/pkg/a.gguf",
            WheelMember(name="name", version="1.0", member="pkg/a.gguf"),
            "a.gguf",
        ),
    ],
)
@pytest.mark.parametrize("sha256", [None, HASH])
def test_each_form_is_read(text, place, name, sha256):
    assert is_uri(text)
    uri = read_uri(text if sha256 is None else f"{text}#sha256={sha256.upper()}")
    assert (uri.place, uri.file_name, uri.sha256, uri.text) == (place, name, sha256, text)


def test_a_file_from_anywhere_keeps_its_hash_in_its_name():
    uri = read_uri(f"https://example.com/m/a%20b.gguf?x=1#sha256={HASH}")
    assert (uri.file_name, uri.sha256, uri.place.authority) == ("a b.gguf", HASH, "example.com")
    assert read_uri(uri.text) == uri


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("https://example.com/a.gguf", "#sha256=HEX"),
        ("https://example.com/a.gguf#sha256=abc", "64 hexadecimal"),
        (f"https://example.com/#sha256={HASH}", "names no file"),
        ("file://server/a.gguf", "'server'"),
        ("file:/m/", "names no file"),
        ("hf:model/a.gguf", "hf:OWNER/NAME"),
        ("hf:org/model", "hf:OWNER/NAME"),
        ("hf:org/model/../a", "no path within"),
        ("s3:bucket/a", "s3://BUCKET/KEY"),
        ("s3://bucket", "s3://BUCKET/KEY"),
        ("s3://bucket/", "s3://BUCKET/KEY"),
        ("s3://bucket/a/", "names no file"),
        ("s3://b@d/a", "bad bucket"),
        ("pypi:name/a", "pypi:NAME==VERSION"),
        ("ipfs:nonsense/a", "bad CID"),
        ("ipfs:/a", "bad CID"),
        ("s3://bucket/a\nb", "control character"),
        ("file:/m/a%00.gguf", "control character"),
        ("ftp://example.com/a", "file:, hf:"),
    ],
)
def test_what_is_wrong_is_named_with_what_would_be_right(text, said):
    with pytest.raises(LLMInvalidRequestError, match=said.replace("(", r"\(")):
        read_uri(text)


@pytest.mark.parametrize("text", ["model.gguf", "/m/a.gguf", "name", "C:/m/a.gguf", "s4://a/b", ""])
def test_a_path_or_a_name_is_no_uri(text):
    assert not is_uri(text)


@given(st.sampled_from(SCHEMES), st.text(max_size=60))
def test_any_text_is_read_or_refused_by_an_error_of_ours(scheme, rest):
    try:
        uri = read_uri(f"{scheme}:{rest}")
    except (LLMInvalidRequestError, LLMCapabilityError):
        return
    assert "/" not in uri.file_name
    assert uri.file_name not in {"", ".", ".."}
