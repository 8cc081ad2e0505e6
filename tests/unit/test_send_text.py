"""The chat model's way to send text is only a shorter one: whatever happens, the same gets into the log."""

import asyncio
import threading

import pytest

from everstream.contract.output_handler import GenerationStopped, HandlerOptions, StreamOutputHandler
from everstream.log.entries import decode_lines
from harness.sink import WriterSink

MOST_BYTES = 100


class Scene:
    def __init__(self, by_text, delivered=(), **options):
        self._by_text, self._sink = by_text, WriterSink()
        states = [[n] for n in range(len(delivered))]
        self.handler = StreamOutputHandler(self._sink, list(delivered), states, HandlerOptions(MOST_BYTES, **options))

    def send(self, text, resume=(1,)):
        if self._by_text:
            self.handler.send_text(text, list(resume))
        else:
            self.handler.send_streamed_output({"text": text}, list(resume))

    async def entries(self):
        await asyncio.sleep(0)
        writer = self._sink.writer
        return decode_lines(writer.take().lines, 1)


def plain(scene):
    for text in ("a", "b", '"\x00é🚀', ""):
        scene.send(text, (1, 2))
    scene.send("no tokens", ())
    scene.handler.finalise_streamed_output()


def after_the_end(scene):
    scene.send("a")
    scene.handler.finalise_streamed_output()
    scene.send("b")


def after_a_stop(scene):
    scene.send("a")
    scene.handler.stop()
    scene.send("b")


def too_large(scene):
    scene.send("a")
    scene.send("\x00" * 16)
    scene.send("b")


def almost_too_large(scene):
    scene.send("a")
    scene.send("é" * (MOST_BYTES // 2 - 6))
    scene.send("b" * (MOST_BYTES - 11))


def after_another_schema(scene):
    scene.handler.send_streamed_output({"text": "a", "score": 1.0}, [1])
    scene.send("b")


def before_another_schema(scene):
    scene.send("a")
    scene.handler.send_streamed_output({"words": "b"}, [1])
    scene.send("c")


def from_a_thread(scene):
    scene.send("a")
    thread = threading.Thread(target=scene.send, args=["b"])
    thread.start()
    thread.join()
    scene.send("c")


SCENES = [
    plain,
    after_the_end,
    after_a_stop,
    too_large,
    almost_too_large,
    after_another_schema,
    before_another_schema,
    from_a_thread,
]


def entries_of(play, by_text, **options):
    async def main():
        scene = Scene(by_text, **options)
        play(scene)
        return await scene.entries()

    return asyncio.run(main())


@pytest.mark.parametrize("play", SCENES)
def test_same_as_sending_an_output(play):
    expected = entries_of(play, by_text=False)
    assert expected and entries_of(play, by_text=True) == expected


@pytest.mark.parametrize("again", [["a", "b", "c"], ["a", "x"]])
def test_model_that_starts_over_is_compared_with_the_log(again):
    def play(scene):
        for text in again:
            scene.send(text)

    delivered = [{"text": "a"}, {"text": "b"}]
    expected = entries_of(play, by_text=False, delivered=delivered)
    assert len(expected) == 1 and entries_of(play, by_text=True, delivered=delivered) == expected


@pytest.mark.parametrize("play", [after_the_end, after_a_stop])
def test_model_that_asked_for_it_gets_an_error(play):
    with pytest.raises(GenerationStopped):
        entries_of(play, by_text=True, stop_raises=True)
