"""Steps that ask about images: they are sent as they are, and what is none fails in its row alone."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import zlib
from base64 import b64decode, b64encode
from pathlib import Path
from typing import Any

import pytest

from headrace.chains import Chain, Step
from headrace.contracts.errors import LLMInvalidRequestError

from .answering import answering

CHAIN = """
engines:
  - {{name: eye, backend: openai-compatible, model: gpt-4o, endpoint: {url}}}
steps:
  - id: caption
    engine: eye
    user: "What is it?"
    images: {images}
"""


def png(shade: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, shade]))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def asked_of(prompt: str) -> list[str]:
    """The images of a request, as their bytes in base64 or by URL."""
    urls = [part["image_url"]["url"] for part in json.loads(prompt) if part["type"] == "image_url"]
    return [url.removeprefix("data:image/png;base64,") for url in urls]


def run(folder: Path, source: str, images: str, answer: Any = None) -> tuple[int, list[str], str]:
    """The command's status, what was asked, and what it said."""
    with answering(answer or (lambda prompt, before: "a picture")) as server:
        (folder / "chain.yaml").write_text(CHAIN.format(url=server.url, images=images))
        words = ["run", "chain.yaml", source, "-o", "out.jsonl", "--no-progress"]
        done = subprocess.run(
            [sys.executable, "-m", "headrace", *words],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, list(server.asked), done.stderr


def errors(folder: Path) -> list[tuple[object, str]]:
    lines = (folder / "out.jsonl.run" / "errors.jsonl").read_text().splitlines()
    return [(each["id"], each["message"]) for each in map(json.loads, lines)]


def test_a_folder_of_images_is_asked_about_image_by_image(tmp_path):
    (tmp_path / "shots").mkdir()
    for shade in range(4):
        (tmp_path / "shots" / f"{shade}.png").write_bytes(png(shade))
    status, asked, said = run(tmp_path, "shots", "'{{ image }}'")
    assert status == 0, said
    assert sorted(b64decode(asked_of(each)[0]) for each in asked) == sorted(map(png, range(4)))
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [f"{shade}.png" for shade in range(4)]
    (tmp_path / "shots" / "2.png").write_bytes(png(99))
    _, asked, _ = run(tmp_path, "shots", "'{{ image }}'")
    assert [b64decode(asked_of(each)[0]) for each in asked] == [png(99)]


def test_paths_bytes_data_urls_and_urls_are_images_and_lists_are_several(tmp_path):
    (tmp_path / "a.png").write_bytes(png(1))
    text = b64encode(png(2)).decode()
    images = [
        "a.png",
        text,
        f"data:image/png;base64,{text}",
        {"bytes": text, "path": None},
        {"bytes": None, "path": "a.png"},
        "https://example.org/cat.png",
    ]
    rows = [{"id": i, "pictures": one} for i, one in enumerate([*images, images])]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, asked, said = run(tmp_path, "in.jsonl", "pictures")
    assert status == 0, said
    one, two = b64encode(png(1)).decode(), text
    every = [one, two, two, two, one, "https://example.org/cat.png"]
    # Equal images are asked about once, in whatever way they are named.
    assert sorted(map(asked_of, asked)) == sorted([[one], [two], every[-1:], every])


def test_what_is_no_image_fails_in_its_row_alone(tmp_path):
    (tmp_path / "good.png").write_bytes(png(1))
    (tmp_path / "secret.png").write_text("password")
    with (tmp_path / "huge.png").open("wb") as file:
        file.write(png(1))
        file.truncate((20 << 20) + 1)
    wrong: list[tuple[object, str]] = [
        ("secret.png", "not an image; PNG, JPEG, GIF or WebP is needed"),
        ("gone.png", "which is no file"),
        ("huge.png", "is larger than 20 MiB"),
        (".", "which is no file"),
        (None, "must be a file's path"),
        (5, "must be a file's path"),
        ("nul\u0000.png", "no file"),
        ("data:text/plain,hello", "must be a data: URL in base64"),
        ("data:image/png;base64,aGVsbG8=", "not an image"),
        ("data:image/png;base64,!!", "not base64"),
        ({"bytes": "!!"}, "not base64"),
        ("x" * 5000, ""),
    ]
    rows = [{"id": -1, "image": "good.png"}]
    rows += [{"id": i, "image": image} for i, (image, _) in enumerate(wrong)]
    rows += [{"id": len(wrong)}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, asked, _ = run(tmp_path, "in.jsonl", "image")
    assert status == 3
    assert len(asked) == 1
    told = errors(tmp_path)
    assert [id for id, _ in told] == list(range(len(wrong) + 1))
    for (_, message), said in zip(
        told, [*(said for _, said in wrong), "'image' is undefined"], strict=True
    ):
        assert message.startswith("caption.images")
        assert said in message
        assert "password" not in message


@pytest.mark.parametrize(
    ("images", "said"),
    [
        ("", "must be an expression"),
        (5, "must be an expression"),
        ("a b", "caption.images is 'a b'"),
    ],
)
def test_what_is_no_expression_is_refused(images, said):
    with pytest.raises(LLMInvalidRequestError, match=said):
        Step(id="caption", engine="e", user="x", images=images)


def test_an_image_that_nothing_gives_is_refused_before_anything_runs():
    step = Step(
        id="caption", engine="e", user="x", images="imgae", input={"properties": {"image": {}}}
    )
    with pytest.raises(
        LLMInvalidRequestError, match="names 'imgae', which nothing before it gives"
    ):
        Chain(step)


def test_a_step_without_images_is_kept_by_the_same_key_as_ever():
    step = Step(id="a", engine="e", user="x")
    assert "images" not in str(step.signature())
    assert "images" in str(Step(id="a", engine="e", user="x", images="image").signature())


def test_images_of_a_saved_dataset_are_asked_about(tmp_path):
    pytest.importorskip("pyarrow")
    status, asked, said = run(tmp_path, str(Path(__file__).parent / "saved_dataset"), "image")
    assert status == 0, said
    assert len(asked) == 1  # the three are equal
