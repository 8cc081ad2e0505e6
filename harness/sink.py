"""A sink that connects a real output handler to a real writer, for tests and benchmarks of that path."""

from everstream.engine.appender import Writer
from everstream.log.entries import encode_token


class WriterSink:
    def __init__(self, writer=None):
        self.writer = writer or Writer("", lambda _: None, lambda _: None)

    @property
    def writable(self):
        return self.writer.writable

    def put(self, output, resume, joinable):
        self.writer.put(encode_token(output), resume)

    def end(self, state, data):
        self.writer.end(state, data)

    def progress(self):
        pass

    def reject(self, data):
        self.writer.end("failed", data)
