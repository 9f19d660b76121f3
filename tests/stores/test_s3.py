"""What we say to S3 without a server: signatures by AWS's own examples, keys, addresses, errors.

Servers judge the rest (test_s3_servers.py).
"""

from __future__ import annotations

import asyncio
from datetime import datetime, timezone

import pytest

from headrace.contracts.errors import (
    LLMAuthError,
    LLMInvalidRequestError,
    LLMModelNotFoundError,
    LLMUnavailableError,
)
from headrace.net.scripted import ScriptedAnswer, ScriptedTransport
from headrace.net.transport import parse_url
from headrace.stores.credentials import Credentials
from headrace.stores.s3.bucket import Bucket
from headrace.stores.s3.settings import S3Keys, S3Settings, find_keys, s3_settings
from headrace.stores.s3.signing import signed_headers, signed_query
from headrace.stores.secret import Secret
from headrace.stores.web import Web
from stores.test_download import NoWait

# https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
AWS_KEYS = S3Keys(
    key_id="AKIAIOSFODNN7EXAMPLE", secret=Secret("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
)
AT = datetime(2013, 5, 24, tzinfo=timezone.utc)
EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
HOST = "examplebucket.s3.amazonaws.com"


@pytest.mark.parametrize(
    ("query", "signature"),
    [
        ({"lifecycle": ""}, "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
        (
            {"max-keys": "2", "prefix": "J"},
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_requests_are_signed_as_in_aws_s_examples(query, signature):
    headers = signed_headers(
        "GET", HOST, "/", query, (), keys=AWS_KEYS, region="us-east-1", at=AT, payload_sha256=EMPTY
    )
    said = dict(headers)["authorization"]
    assert said == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        f"SignedHeaders=host;x-amz-content-sha256;x-amz-date, Signature={signature}"
    )


def test_a_link_is_signed_as_in_aws_s_example():
    query = signed_query(
        "GET", HOST, "/test.txt", keys=AWS_KEYS, region="us-east-1", at=AT, lasts_s=86400
    )
    assert query.endswith(
        "X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    )


def test_the_token_of_a_key_for_a_while_is_signed_too():
    keys = S3Keys(key_id="A", secret=Secret("b"), token=Secret("the-token"))
    how = {"keys": keys, "region": "eu-west-1", "at": AT}
    headers = dict(signed_headers("GET", HOST, "/", {}, (), payload_sha256=EMPTY, **how))
    assert headers["x-amz-security-token"] == "the-token"
    assert "x-amz-security-token" in headers["authorization"]
    assert "X-Amz-Security-Token=the-token" in signed_query("GET", HOST, "/", lasts_s=1, **how)


# Whose keys.

PAIR = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret"}


def held(environment, tmp_path=None, dotenv=None):
    path = None
    if dotenv is not None:
        path = tmp_path / ".env"
        path.write_text(dotenv)
    return Credentials(environment=environment, dotenv=path, config=None, seed=None)


def test_keys_are_those_that_were_named():
    keys = find_keys(S3Settings(), held(PAIR))
    assert (keys.key_id, keys.secret.reveal(), keys.token) == ("id", "secret", None)
    assert "secret" not in repr(keys).replace("secret=", "")


@pytest.mark.parametrize("missing", sorted(PAIR))
def test_without_both_halves_nothing_is_asked_and_the_missing_one_is_named(missing):
    some = {name: value for name, value in PAIR.items() if name != missing}
    with pytest.raises(LLMAuthError, match=f"set {missing}"):
        find_keys(S3Settings(), held(some))


def test_nobody_is_anonymous_by_accident():
    with pytest.raises(LLMAuthError, match="HEADRACE_S3_ANONYMOUS"):
        find_keys(S3Settings(), held({}))
    assert find_keys(S3Settings(anonymous=True), held(PAIR)) is None


def test_two_halves_from_two_places_are_no_pair(tmp_path):
    credentials = held({"AWS_ACCESS_KEY_ID": "id"}, tmp_path, "AWS_SECRET_ACCESS_KEY=secret\n")
    with pytest.raises(LLMAuthError, match="no pair"):
        find_keys(S3Settings(), credentials)


def test_a_token_that_lies_elsewhere_belongs_to_another_key(tmp_path):
    credentials = held(PAIR, tmp_path, "AWS_SESSION_TOKEN=old\n")
    assert find_keys(S3Settings(), credentials).token is None


# Where.


def test_the_environment_names_endpoint_and_region():
    settings = s3_settings(
        {
            "AWS_ENDPOINT_URL": "http://other:1",
            "AWS_ENDPOINT_URL_S3": "http://minio:9000/",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }
    )
    assert settings.endpoint.authority == "minio:9000"
    assert settings.region == "eu-west-1"
    assert not settings.anonymous


def test_anonymous_is_true_or_false():
    assert s3_settings({"HEADRACE_S3_ANONYMOUS": "true"}).anonymous
    with pytest.raises(LLMInvalidRequestError, match="maybe"):
        s3_settings({"HEADRACE_S3_ANONYMOUS": "maybe"})


class Recorded:
    """Hands requests to a script and remembers them."""

    def __init__(self, *answers):
        self.inner, self.requests = ScriptedTransport(answers), []

    async def send(self, request, limits):
        self.requests.append(request)
        return await self.inner.send(request, limits)

    async def aclose(self):
        await self.inner.aclose()


def asked(answers, do, *, name="models", clock=None, **settings):
    transport = Recorded(*answers)
    web = Web(transport=transport, private_hosts=frozenset(["minio"]))

    async def run():
        bucket = Bucket(
            name=name,
            settings=S3Settings(**settings),
            keys=AWS_KEYS,
            web=web,
            clock=clock or NoWait(),
        )
        return await do(bucket)

    return asyncio.run(run()), transport.requests


HEAD = ScriptedAnswer(headers=(("content-length", "3"),))


@pytest.mark.parametrize(
    ("settings", "name", "url"),
    [
        ({"region": "eu-west-1"}, "models", "https://models.s3.eu-west-1.amazonaws.com/a%20b"),
        (
            {"region": "eu-west-1"},
            "my.models",
            "https://s3.eu-west-1.amazonaws.com/my.models/a%20b",
        ),
        ({"region": "cn-north-1"}, "models", "https://models.s3.cn-north-1.amazonaws.com.cn/a%20b"),
        ({"endpoint": parse_url("http://minio:9000")}, "models", "http://minio:9000/models/a%20b"),
        ({"endpoint": parse_url("http://minio/s3/")}, "models", "http://minio/s3/models/a%20b"),
    ],
)
def test_the_bucket_is_asked_where_it_is(settings, name, url):
    head, requests = asked([HEAD], lambda bucket: bucket.head("a b"), name=name, **settings)
    assert head.size_bytes == 3
    to = requests[0].url
    assert f"{to.scheme}://{to.authority}{to.target}" == url


def test_aws_without_a_region_says_what_to_set():
    with pytest.raises(LLMInvalidRequestError, match="AWS_REGION"):
        asked([HEAD], lambda bucket: bucket.head("a"))


MINIO = {"endpoint": parse_url("http://minio:9000")}


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "AccessDenied", LLMAuthError, "bucket's policy"),
        (403, "InvalidAccessKeyId", LLMAuthError, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", LLMAuthError, "AWS_SECRET_ACCESS_KEY"),
        (400, "ExpiredToken", LLMAuthError, "get a new one"),
        (404, "NoSuchBucket", LLMModelNotFoundError, "no such bucket"),
        (404, "NoSuchKey", LLMModelNotFoundError, "model list"),
    ],
)
def test_errors_say_what_to_do(status, code, kind, said):
    body = f"<Error><Code>{code}</Code><Message>In its own words</Message></Error>".encode()
    answer = ScriptedAnswer(status=status, body=body)
    with pytest.raises(kind, match=said) as caught:
        asked([answer], lambda bucket: bucket.open("a"), **MINIO)
    assert caught.value.code == code
    assert caught.value.provider_message == "In its own words"


def test_a_bucket_of_another_region_says_which():
    answer = ScriptedAnswer(status=301, headers=(("x-amz-bucket-region", "eu-west-3"),))
    with pytest.raises(Exception, match="eu-west-3: set AWS_REGION"):
        asked([answer], lambda bucket: bucket.open("a"), **MINIO)


def test_what_is_no_xml_is_an_error_all_the_same():
    answer = ScriptedAnswer(status=500, body=b"<!doctype html><title>Oops")
    with pytest.raises(LLMUnavailableError, match="status 500"):
        asked([answer], lambda bucket: bucket.open("a"), **MINIO)


def test_what_s3_refuses_for_now_is_put_again_after_as_long_as_it_says(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    busy = ScriptedAnswer(status=503, headers=(("retry-after", "7"),))
    clock = NoWait()
    answers = [busy, ScriptedAnswer(status=500), ScriptedAnswer()]
    head, requests = asked(answers, lambda bucket: bucket.put("a", file), clock=clock, **MINIO)
    assert head.size_bytes == 3
    assert [request.body for request in requests] == [b"abc"] * 3
    assert clock.waits == [7.0, 2.0]


def test_what_s3_refuses_for_good_is_put_once(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    clock = NoWait()
    with pytest.raises(LLMAuthError):
        asked([ScriptedAnswer(status=403)], lambda b: b.put("a", file), clock=clock, **MINIO)
    assert clock.waits == []


def test_s3_that_is_down_is_given_up_after_a_few_longer_waits(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"abc")
    clock = NoWait()
    down = [ScriptedAnswer(status=500)] * 10
    with pytest.raises(LLMUnavailableError):
        asked(down, lambda bucket: bucket.put("a", file), clock=clock, **MINIO)
    assert clock.waits == [1.0, 2.0, 4.0]


@pytest.mark.parametrize("seconds", [0, 604_801])
def test_a_link_for_longer_than_s3_allows_is_refused(seconds):
    async def link(bucket):
        return bucket.link("a", seconds)

    with pytest.raises(LLMInvalidRequestError, match="604800"):
        asked([], link, **MINIO)


def test_parts_smaller_than_s3_takes_are_refused(tmp_path):
    with pytest.raises(LLMInvalidRequestError, match="5242880"):
        asked([], lambda bucket: bucket.put("a", tmp_path / "x", part_bytes=1000), **MINIO)
