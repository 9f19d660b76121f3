"""The Whisper child: one process that hears one recording after the other.

Recordings are other people's files, and what reads them is a large C library: so it is done here,
where it can break nothing else. Only a few kinds of files are read, none that names another file or
an address. Speaks the contract of ``headrace.backends.child`` for its start and end, and
``whisper_frames`` between.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.backends.local.whisper_frames import (
    End,
    Failed,
    Hear,
    Refused,
    Segment,
    Sound,
    ToChild,
)
from headrace.net.frames import FrameError, FrameReader, listen, write_frame

if TYPE_CHECKING:
    import numpy

SAMPLE_RATE = 16_000
# Of what FFmpeg can read: files that hold their sound themselves. Playlists and the like, by which
# a file makes its reader open others, are not among them.
FORMATS = "wav,w64,mp3,flac,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,caf,amr"
_SEND_S = 30.0
_READ_BYTES = 1 << 18


class RefusedError(ValueError):
    """What is wrong with a request."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def main() -> None:
    """Load the model, and hear what comes."""
    os.nice(5)
    # Before anything is imported that might look for a newer one.
    os.environ["HF_HUB_OFFLINE"] = "1"
    settings = json.loads(sys.stdin.buffer.readline())
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        hearing = Hearing(settings)
        listener = listen(Path(settings["socket"]))
    except Exception as failure:  # noqa: BLE001  whatever it was, the parent must hear of it
        answer.write(json.dumps({"error": f"{type(failure).__name__}: {failure}"[:500]}) + "\n")
        answer.flush()
        os._exit(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    answer.write(json.dumps({"ready": {"multilingual": hearing.multilingual}}) + "\n")
    answer.flush()
    while True:
        peer, _ = listener.accept()
        with contextlib.closing(peer), contextlib.suppress(OSError):
            hearing.answer(peer)


def _end_with_parent() -> None:
    while sys.stdin.buffer.read(1 << 16):
        pass
    os._exit(0)


class Hearing:
    """The loaded model."""

    def __init__(self, settings: dict[str, Any]) -> None:
        folder = Path(settings["path"])
        for name in ("model.bin", "config.json", "tokenizer.json"):
            # Where one is missing, faster-whisper would look for it on a hub.
            if not (folder / name).is_file():
                raise FileNotFoundError(f"there is no {name} in {folder}")
        from faster_whisper import WhisperModel

        self._model = WhisperModel(
            str(folder),
            device="cpu",
            compute_type="int8",
            cpu_threads=settings["threads"],
            local_files_only=True,
        )
        self._most_s: float = settings["max_seconds"]
        self._most_bytes: int = settings["max_bytes"]
        self.multilingual = bool(self._model.model.is_multilingual)

    def answer(self, peer: socket.socket) -> None:
        """Hear what ``peer`` sends and say it; OSError where it is gone."""
        try:
            sound, asked = self._read(peer)
            if asked is None:
                return
            for message in self._heard(sound, asked):
                if _has_left(peer):
                    return
                _send(peer, message)
        except RefusedError as wrong:
            _send(peer, Refused(str(wrong), wrong.param))
        except FrameError as wrong:
            _send(peer, Failed(str(wrong)))
        except OSError:
            raise
        except Exception as failure:  # noqa: BLE001  the next recording may well be heard
            _send(peer, Failed(f"{type(failure).__name__}: {failure}"[:500]))

    def _read(self, peer: socket.socket) -> tuple[bytes, Hear | None]:
        reader: FrameReader[ToChild] = FrameReader(ToChild)
        sound = bytearray()
        while data := peer.recv(_READ_BYTES):
            for message in reader.feed(data):
                if isinstance(message, Hear):
                    return bytes(sound), message
                assert isinstance(message, Sound)
                sound += message.data
                if len(sound) > self._most_bytes:
                    raise RefusedError(f"it is larger than {self._most_bytes} bytes", "file")
        return b"", None

    def _heard(self, sound: bytes, asked: Hear) -> Iterator[Segment | End]:
        samples = samples_of(sound, self._most_s)
        more: dict[str, Any] = {}
        if asked.temperature is not None:
            more["temperature"] = asked.temperature
        segments, info = self._model.transcribe(
            samples,
            language=asked.language if self.multilingual else "en",
            task="translate" if asked.translate else "transcribe",
            initial_prompt=asked.prompt,
            word_timestamps=asked.words,
            **more,
        )
        for each in segments:
            yield Segment(
                start_s=round(float(each.start), 3),
                end_s=round(float(each.end), 3),
                text=each.text,
                seek=int(each.seek),
                token_ids=[int(token) for token in each.tokens],
                temperature=float(each.temperature or 0.0),
                avg_logprob=float(each.avg_logprob),
                compression_ratio=float(each.compression_ratio),
                no_speech_prob=float(each.no_speech_prob),
                words=[
                    (word.word, round(float(word.start), 3), round(float(word.end), 3))
                    for word in each.words or ()
                ],
            )
        yield End(language=info.language, duration_s=round(float(info.duration), 3))


def samples_of(sound: bytes, most_s: float) -> numpy.ndarray:
    """The recording as Whisper hears it; raises RefusedError where it is none, or longer than that.

    It is decoded piece by piece, so that a small file of a long silence fills no memory.
    """
    import av
    import numpy

    pieces: list[numpy.ndarray] = []
    left = int(most_s * SAMPLE_RATE)
    try:
        with av.open(
            io.BytesIO(sound),
            mode="r",
            metadata_errors="ignore",
            options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
        ) as container:
            if not container.streams.audio:
                raise RefusedError("there is no sound in it", "file")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE)
            frames = container.decode(container.streams.audio[0])
            for frame in _with_end(frames):
                for piece in resampler.resample(frame):
                    samples = piece.to_ndarray().reshape(-1)
                    left -= len(samples)
                    if left < 0:
                        raise RefusedError(
                            f"it is longer than {most_s:g} s; divide it into several", "file"
                        )
                    pieces.append(samples)
    except (av.error.FFmpegError, ValueError) as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError(
            "it is no recording that can be read (WAV, MP3, FLAC, Ogg, WebM, MP4, M4A, AAC, AIFF)",
            "file",
        ) from error
    if not pieces:
        raise RefusedError("there is no sound in it", "file")
    joined = numpy.concatenate(pieces)
    return joined.astype(numpy.float32) / 32768.0


def _with_end(frames: Iterator[Any]) -> Iterator[Any]:
    """``frames``, and ``None`` behind them, at which a resampler gives what it holds back."""
    yield from frames
    yield None


def _has_left(peer: socket.socket) -> bool:
    try:
        return peer.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False


def _send(peer: socket.socket, message: object) -> None:
    peer.settimeout(_SEND_S)
    try:
        peer.sendall(write_frame(message))
    finally:
        peer.settimeout(None)


if __name__ == "__main__":
    main()
