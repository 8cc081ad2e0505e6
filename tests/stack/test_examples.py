"""The model folders in examples/, each in a real stack, and the commands of their README."""

import base64
import io
import itertools
import shutil
import struct
import wave
import zlib

import pytest

from everstream.settings import PROJECT_ROOT
from harness.readme_commands import assert_printed, launched_example, read_example, run_commands
from harness.sse_client import assert_whole, connect, read_all

EXAMPLES = PROJECT_ROOT / "examples"
SAMPLE_RATE = 24000
PIECE_FRAMES = 4800


def outputs(events):
    return [event.json for event in events if event.type == "message"]


def run(stack, **inputs):
    events = read_all(stack.events_url(stack.submit(**inputs)))
    assert_whole(events)
    assert events[-1].type == "done", events[-1]
    return outputs(events)


@pytest.mark.parametrize("model", ["counter", "progress"])
def test_killed_engine_repeats_and_skips_nothing(own_stack, model):
    stack = own_stack(app_dir=EXAMPLES / model).start()
    generation = stack.submit(**({"count": 5} if model == "counter" else {"steps": 5}))
    with connect(stack.events_url(generation)) as stream:
        stream.read(until=lambda seen: len(outputs(seen.events)) >= 2)
        stack.engines[0].kill()
        stack.start_engine()
        events = stream.read().events
    assert_whole(events)
    assert [event.json for event in events if event.type == "resumed"] == [{"attempt": 2}]
    sent = outputs(events)
    if model == "counter":
        assert sent == [{"n": n} for n in range(1, 6)]
    else:
        assert [(output["step"], output["of"]) for output in sent] == [(step, 5) for step in range(1, 6)]
        # There are 114,155 primes below 1,500,000.
        assert [output["result"] for output in sent] == [None] * 4 + [114_155]
        assert sent[-1]["message"] == "114155 primes below 1500000"


def test_audio_pieces_join_into_one_melody(own_stack):
    stack = own_stack(app_dir=EXAMPLES / "audio").start()
    sent = run(stack, notes="A c-")
    assert {output["sample_rate"] for output in sent} == {SAMPLE_RATE}
    pieces = [samples_of(base64.b64decode(output["audio"])) for output in sent]
    assert [len(piece) for piece in pieces] == [PIECE_FRAMES] * 6
    # Two pieces for each note: A is 440 Hz, the upper C 523.25 Hz, and the rest is silent.
    for piece, frequency in zip(pieces, [440, 440, 523.25, 523.25, 0, 0], strict=True):
        assert abs(sign_changes(piece) - 2 * frequency * PIECE_FRAMES / SAMPLE_RATE) <= 2
    # The wave continues across the seams: no step is steeper than the tone itself.
    melody = [sample for piece in pieces for sample in piece]
    assert max(abs(after - before) for before, after in itertools.pairwise(melody)) < 1200


def samples_of(data):
    with wave.open(io.BytesIO(data)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, SAMPLE_RATE)
        frames = file.readframes(file.getnframes())
    return struct.unpack(f"<{len(frames) // 2}h", frames)


def sign_changes(samples):
    signs = [sample > 0 for sample in samples if sample]
    return sum(before != after for before, after in itertools.pairwise(signs))


def test_image_is_a_png_of_the_mandelbrot_set(own_stack):
    stack = own_stack(app_dir=EXAMPLES / "image").start()
    (output,) = run(stack, width=31, height=21)
    rows = decode_png(base64.b64decode(output["image"]), 31, 21)
    inside = rows[10][15]
    assert [rows[0][0], rows[0][30], rows[20][0], rows[20][30]].count(inside) == 0
    # The set is symmetric about the real axis, and more than a tenth of this view.
    assert rows == rows[::-1]
    assert sum(row.count(inside) for row in rows) > 31 * 21 / 10


def decode_png(data, width, height):
    """The rows of a PNG with one byte per pixel."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert data[at + 8 + length : at + 12 + length] == struct.pack(">I", zlib.crc32(name + body))
        chunks[name] = body
        at += 12 + length
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (width, height, 8, 3, 0, 0, 0)
    pixels = zlib.decompress(chunks[b"IDAT"])
    rows = [pixels[row * (width + 1) : (row + 1) * (width + 1)] for row in range(height)]
    assert len(pixels) == height * (width + 1)
    assert {row[0] for row in rows} == {0}, "a filter is used"
    assert max(max(row) for row in rows) < len(chunks[b"PLTE"]) // 3
    return [row[1:] for row in rows]


@pytest.mark.parametrize("name", ["counter", "audio", "progress", "image"])
def test_commands_of_the_readme(tmp_path, name):
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: apt-get install curl")
    example = read_example(name)
    with launched_example(tmp_path, example) as stack:
        assert_printed(example.output, run_commands(stack, example, tmp_path))
    if name == "image":
        decode_png((tmp_path / "mandelbrot.png").read_bytes(), 320, 240)
