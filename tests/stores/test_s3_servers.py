"""S3, judged by servers that speak it (`make test-s3`): moto, which checks our signatures by AWS's
own code, with AWS's client beside ours; and s3rver, which somebody else wrote."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from attrs import evolve, frozen

from headrace.contracts.errors import LLMAuthError, LLMBadResponseError, LLMModelNotFoundError
from headrace.net.clock import SystemClock
from headrace.net.transport import parse_url
from headrace.stores.credentials import Credentials
from headrace.stores.models.reach import Reach, bucket_of, reaching
from headrace.stores.s3.settings import S3Settings
from stores.test_download import pull as pulled

S3RVER = Path(sys.prefix) / "npm/node_modules/s3rver/bin/s3rver.js"
KEY = "models/a b/größe+1 (2)~!*'.gguf"
SMALL = bytes(range(256)) * 100
LARGE = SMALL * 500  # 12.8 MB: three parts of the smallest size that S3 takes
PART = 5 << 20

pytestmark = pytest.mark.skipif(
    find_spec("moto") is None, reason="moto is not installed here; `make test-s3` runs these"
)


@frozen(kw_only=True)
class Service:
    """A server with the bucket ``models``; ``aws`` is AWS's own client of it, where it has one."""

    url: str
    key_id: str
    secret: str
    checks_signatures: bool
    aws: object = None

    @property
    def reach(self):
        keys = {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret}
        return self.reach_with(keys)

    def reach_with(self, keys, **settings):
        return Reach(
            s3=S3Settings(endpoint=parse_url(self.url), **settings),
            credentials=Credentials(environment=keys, dotenv=None, config=None, seed=None),
        )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ready(process, url):
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"{process.args} does not answer")


@pytest.fixture(scope="module")
def moto():
    import boto3

    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            ready(process, url)
            plain = {
                "endpoint_url": url,
                "region_name": "us-east-1",
                "aws_access_key_id": "before",
                "aws_secret_access_key": "before",
            }
            iam = boto3.client("iam", **plain)
            iam.create_user(UserName="headrace")
            iam.put_user_policy(
                UserName="headrace",
                PolicyName="s3",
                PolicyDocument='{"Version": "2012-10-17", "Statement": '
                '[{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}',
            )
            key = iam.create_access_key(UserName="headrace")["AccessKey"]
            # From here on every request must be signed, rightly.
            asked = urllib.request.Request(
                f"{url}/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"}, method="POST"
            )
            urllib.request.urlopen(asked, timeout=20).close()
            aws = boto3.client(
                "s3",
                **{
                    **plain,
                    "aws_access_key_id": key["AccessKeyId"],
                    "aws_secret_access_key": key["SecretAccessKey"],
                },
            )
            aws.create_bucket(Bucket="models")
            yield Service(
                url=url,
                key_id=key["AccessKeyId"],
                secret=key["SecretAccessKey"],
                checks_signatures=True,
                aws=aws,
            )
        finally:
            process.kill()


@pytest.fixture(scope="module")
def s3rver(tmp_path_factory):
    if not S3RVER.is_file() or shutil.which("node") is None:
        pytest.skip("s3rver is not installed: npm was not here as `make test-s3` installed")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    # It writes its tokens in a cipher that OpenSSL 3 counts among the old ones.
    command = [
        "node",
        "--openssl-legacy-provider",
        str(S3RVER),
        "-d",
        str(tmp_path_factory.mktemp("s3rver")),
        "--silent",
    ]
    command += ["-a", "127.0.0.1", "-p", str(port), "--configure-bucket", "models"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            ready(process, url)
            yield Service(url=url, key_id="S3RVER", secret="S3RVER", checks_signatures=False)
        finally:
            process.kill()


@pytest.fixture(params=["moto", "s3rver"])
def service(request):
    return request.getfixturevalue(request.param)


def on(service, do, reach=None, bucket="models"):
    """What ``do`` gives, of a bucket of the service."""

    async def run():
        reached = reach or service.reach
        async with reaching(reached) as web:
            return await do(bucket_of(reached, web, bucket, SystemClock()))

    return asyncio.run(run())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def files(tmp_path):
    small, large = tmp_path / "small.gguf", tmp_path / "large.gguf"
    small.write_bytes(SMALL)
    large.write_bytes(LARGE)
    return small, large


def pull(cache, uri, reach, progress=lambda *_: None):
    # Requests are signed with the time.
    return pulled(cache, uri, reach, progress, clock=SystemClock())


def put(service, key, path, **how):
    return on(service, lambda bucket: bucket.put(key, path, **how))


def test_an_object_is_put_seen_fetched_and_deleted(service, files, empty_cache):
    head = put(service, KEY, files[0])
    assert (head.size_bytes, head.sha256) == (len(SMALL), sha256(SMALL))
    seen = on(service, lambda bucket: bucket.head(KEY))
    assert (seen.size_bytes, seen.sha256, seen.key) == (len(SMALL), sha256(SMALL), KEY)
    kept = pull(empty_cache, f"s3://models/{KEY}", service.reach)
    assert kept.sha256 == sha256(SMALL)
    assert Path(kept.path).read_bytes() == SMALL
    on(service, lambda bucket: bucket.delete(KEY))
    with pytest.raises(LLMModelNotFoundError, match="model list"):
        on(service, lambda bucket: bucket.head(KEY))
    on(service, lambda bucket: bucket.delete(KEY))


def test_a_large_file_goes_up_in_parts_and_comes_down_as_it_was(service, files, empty_cache):
    told = []
    put(service, KEY, files[1], part_bytes=PART, progress=lambda *n: told.append(n))
    assert told[-1] == (len(LARGE), len(LARGE))
    assert len(told) == 3
    assert on(service, lambda bucket: bucket.head(KEY)).size_bytes == len(LARGE)
    assert pull(empty_cache, f"s3://models/{KEY}", service.reach).sha256 == sha256(LARGE)


def test_a_part_that_is_here_is_not_fetched_again(service, files, empty_cache):
    from headrace.stores.models.kept import KeptFiles
    from headrace.stores.models.uri import read_uri

    put(service, "part.gguf", files[1])
    etag = on(service, lambda bucket: bucket.head("part.gguf")).etag
    part = KeptFiles(empty_cache).part(read_uri("s3://models/part.gguf"))
    part.parent.mkdir()
    part.write_bytes(LARGE[: len(LARGE) // 2])
    import json

    note = {"uri": "s3://models/part.gguf", "validator": etag, "total": len(LARGE)}
    part.with_name(f"{part.name}.json").write_text(json.dumps(note))
    told = []
    kept = pull(
        empty_cache, "s3://models/part.gguf", service.reach, lambda _, done, __: told.append(done)
    )
    assert kept.sha256 == sha256(LARGE)
    assert min(told) > len(LARGE) // 2


def test_objects_are_listed_below_a_prefix_past_a_thousand(service, tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"x")

    async def many(bucket):
        room = asyncio.Semaphore(4)

        async def one(number):
            async with room:
                await bucket.put(f"many/{number:04} +ä", path)

        async with asyncio.TaskGroup() as group:
            for number in range(1001):
                group.create_task(one(number))
        listed = [found.key async for found in bucket.list("many/")]
        none = [found.key async for found in bucket.list("none/")]
        return listed, none

    listed, none = on(service, many)
    assert listed == [f"many/{number:04} +ä" for number in range(1001)]
    assert none == []


async def link(bucket):
    return bucket.link(KEY, 60)


def test_a_link_is_the_one_that_aws_s_code_makes(moto, monkeypatch):
    # moto itself reads no signature in a query.
    from botocore.auth import S3SigV4QueryAuth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials as AwsCredentials

    url = on(moto, link)
    at = datetime.strptime(parse_qs(urlsplit(url).query)["X-Amz-Date"][0], "%Y%m%dT%H%M%SZ")
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda **_: at)
    theirs = AWSRequest(method="GET", url=f"{moto.url}/models/{quote(KEY, safe='/~')}")
    keys = AwsCredentials(moto.key_id, moto.secret)
    S3SigV4QueryAuth(keys, "s3", "us-east-1", expires=60).add_auth(theirs)
    assert parse_qs(urlsplit(url).query) == parse_qs(urlsplit(theirs.url).query)
    assert "X-Amz-Signature=" in url


def test_a_link_lets_its_holder_fetch_the_object(s3rver, files):
    put(s3rver, KEY, files[0])
    url = on(s3rver, link)
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.read() == SMALL


def test_a_hash_that_the_object_has_not_is_refused(service, files, empty_cache):
    put(service, "a.gguf", files[0])
    with pytest.raises(LLMBadResponseError, match="0" * 64):
        pull(empty_cache, f"s3://models/a.gguf#sha256={'0' * 64}", service.reach)
    assert not (empty_cache / "files").exists()


def test_a_bucket_that_is_not_there_says_so(service):
    async def listed(bucket):
        return [found async for found in bucket.list()]

    with pytest.raises(LLMModelNotFoundError, match="no such bucket"):
        on(service, listed, bucket="no-such-bucket")


def test_without_a_key_nothing_is_asked(service):
    with pytest.raises(LLMAuthError, match=r"--anonymous.*AWS_ACCESS_KEY_ID"):
        on(service, lambda bucket: bucket.head("x"), service.reach_with({}))


# What moto alone can judge.


@pytest.mark.parametrize("wrong", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_a_wrong_key_is_named(moto, files, wrong):
    put(moto, "a.gguf", files[0])
    keys = {"AWS_ACCESS_KEY_ID": moto.key_id, "AWS_SECRET_ACCESS_KEY": moto.secret}
    reach = moto.reach_with({**keys, wrong: "wrong"})

    async def listed(bucket):
        return [found async for found in bucket.list()]

    with pytest.raises(LLMAuthError, match=f"look at {wrong}"):
        on(moto, listed, reach)


def test_asking_anonymously_is_asking_without_a_signature(moto, files):
    put(moto, "a.gguf", files[0])
    reach = moto.reach
    reach = evolve(reach, s3=evolve(reach.s3, anonymous=True))
    with pytest.raises(LLMAuthError, match="may not do this"):
        on(moto, lambda bucket: bucket.head("a.gguf"), reach)
    moto.aws.put_object_acl(Bucket="models", Key="a.gguf", ACL="public-read")
    url = f"{moto.url}/models/a.gguf"
    request = urllib.request.Request(url)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=20)
    refused.value.close()


def test_aws_s_client_reads_what_we_wrote_and_we_what_it_wrote(moto, files, empty_cache):
    put(moto, KEY, files[1], part_bytes=PART)
    got = moto.aws.get_object(Bucket="models", Key=KEY)
    assert got["Body"].read() == LARGE
    assert got["Metadata"] == {"sha256": sha256(LARGE)}
    from boto3.s3.transfer import TransferConfig

    config = TransferConfig(multipart_threshold=PART, multipart_chunksize=PART)
    moto.aws.upload_file(str(files[1]), "models", "theirs/ü.gguf", Config=config)
    assert pull(empty_cache, "s3://models/theirs/ü.gguf", moto.reach).sha256 == sha256(LARGE)


def test_an_upload_that_fails_leaves_no_parts_behind(moto, files):
    class Stop(Exception):
        pass

    def stop(done, total):
        raise Stop

    with pytest.raises(Stop):
        put(moto, "stopped.gguf", files[1], part_bytes=PART, progress=stop)
    assert "Uploads" not in moto.aws.list_multipart_uploads(Bucket="models")
    with pytest.raises(LLMModelNotFoundError):
        on(moto, lambda bucket: bucket.head("stopped.gguf"))


def test_an_upload_that_is_cancelled_leaves_no_parts_behind(moto, files):
    async def cancelled(bucket):
        begun = asyncio.Event()
        task = asyncio.ensure_future(
            bucket.put("gone.gguf", files[1], lambda *_: begun.set(), part_bytes=PART)
        )
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    on(moto, cancelled)
    assert "Uploads" not in moto.aws.list_multipart_uploads(Bucket="models")
