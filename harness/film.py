"""Animated images of a page, made of screenshots."""

import io
import itertools
import time

from PIL import Image, ImageDraw, ImageFont

INTERVAL_MS = 100
LAST_FRAME_MS = 3000
CAPTION_HEIGHT, CAPTION_SIZE = 44, 20


class Film:
    """`caption` is shown below the frames taken while it is set."""

    def __init__(self, page):
        self.page = page
        self.caption = ""
        self._frames = []
        self._starts = []

    def until(self, condition, timeout_s=60):
        """Take frames until `condition` returns a true value."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"timed out after {timeout_s} s of filming"
            self.take()
            self.page.wait_for_timeout(INTERVAL_MS)
        self.take()

    def take(self):
        """Take one frame, if anything has changed."""
        frame = captioned(Image.open(io.BytesIO(self.page.screenshot())), self.caption)
        if not self._frames or frame.tobytes() != self._frames[-1].tobytes():
            self._frames.append(frame)
            self._starts.append(time.monotonic())

    def save(self, path):
        """As animated WebP, PNG or GIF, by the path's suffix, at the speed at which it was taken."""
        durations = [round(1000 * (end - start)) for start, end in itertools.pairwise(self._starts)]
        first, *others = self._frames
        first.save(path, save_all=True, append_images=others, duration=[*durations, LAST_FRAME_MS], loop=0)


def captioned(frame, caption):
    """The frame with a strip below it, so that all frames of a film are of one size."""
    canvas = Image.new("RGB", (frame.width, frame.height + CAPTION_HEIGHT), "#1b1b1f")
    canvas.paste(frame)
    font = ImageFont.load_default(CAPTION_SIZE)
    ImageDraw.Draw(canvas).text((16, frame.height + 9), caption, font=font, fill="#ffffff")
    return canvas
