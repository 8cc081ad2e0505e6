"""Draws the Mandelbrot set: one output, a PNG. The model does not stream, so `infer` returns its output."""

import base64
import struct
import zlib

MAX_SIZE = 640
MAX_STEPS = 64
PALETTE = bytes(level for step in range(MAX_STEPS) for level in (min(255, 8 * step), 4 * step, 255 * step // MAX_STEPS))
INSIDE = 0


class InferlessPythonModel:
    def initialize(self):
        pass

    def infer(self, inputs):
        width = max(1, min(inputs.get("width", 320), MAX_SIZE))
        height = max(1, min(inputs.get("height", 240), MAX_SIZE))
        center = complex(inputs.get("x", -0.6), inputs.get("y", 0.0))
        scale = 3 / max(inputs.get("zoom", 1.0), 0.1) / width
        rows = [
            bytes(color(center + scale * complex(x - (width - 1) / 2, (height - 1) / 2 - y)) for x in range(width))
            for y in range(height)
        ]
        return {"image": base64.b64encode(png(width, rows)).decode()}

    def finalize(self):
        pass


def color(point):
    """The index of a colour: the number of steps after which the point escapes."""
    z = 0j
    for step in range(1, MAX_STEPS):
        z = z * z + point
        if abs(z) > 2:
            return step
    return INSIDE


def png(width, rows):
    """A PNG file with one byte, an index into PALETTE, per pixel."""
    header = struct.pack(">IIBBBBB", width, len(rows), 8, 3, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", header), (b"PLTE", PALETTE), (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, data) for name, data in chunks)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
