"""Plays notes: streams sound as WAV pieces of 200 ms, as a text-to-speech model would."""

import base64
import io
import math
import struct
import time
import wave

SAMPLE_RATE = 24000
PIECE = SAMPLE_RATE // 5
NOTE = 2 * PIECE
FADE = SAMPLE_RATE // 100
PITCHES = {"C": 261.63, "D": 293.66, "E": 329.63, "F": 349.23, "G": 392.0, "A": 440.0, "B": 493.88, "c": 523.25}


class InferlessPythonModel:
    def initialize(self):
        pass

    def infer(self, inputs, stream_output_handler):
        notes = inputs["notes"].replace(" ", "")
        for start in range(0, len(notes) * NOTE, PIECE):
            samples = [sample(notes, at) for at in range(start, start + PIECE)]
            piece = {"audio": base64.b64encode(wav(samples)).decode(), "sample_rate": SAMPLE_RATE}
            stream_output_handler.send_streamed_output(piece)
            # As slow as a speech model that is twice as fast as its speech.
            time.sleep(PIECE / SAMPLE_RATE / 2)
        stream_output_handler.finalise_streamed_output()

    def finalize(self):
        pass


def sample(notes, at):
    """The 16-bit sample number `at`. A letter that is no note is a rest."""
    note, since = divmod(at, NOTE)
    volume = 8000 * min(1, since / FADE, (NOTE - since) / FADE)
    return round(volume * math.sin(2 * math.pi * PITCHES.get(notes[note], 0) * since / SAMPLE_RATE))


def wav(samples):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return buffer.getvalue()
