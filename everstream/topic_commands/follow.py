"""`everstream follow`: a line for each message. It goes on by itself after lost connections and restarts."""

import argparse
import json
import os
import select
import signal
import stat
import sys
import threading
from collections.abc import Callable

from everstream.client import Client, Message
from everstream.topic_commands.message_lines import as_json, as_text


def main(given: argparse.Namespace, url: str, headers: dict[str, str]) -> int:
    # `| head` ends it quietly.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    threading.Thread(target=_end_with_reader, daemon=True).start()
    line = _format(given)
    with (
        Client(url, headers=headers) as client,
        client.follow_topics(given.topics, last=given.last, since=given.since, after=given.after) as messages,
    ):
        for message in messages:
            if not given.json and (message.is_reset or message.is_closed):
                sys.stderr.write(f"everstream | {_notice(message)}\n")
            else:
                sys.stdout.write(line(message))
                sys.stdout.flush()
    return 0


def _end_with_reader() -> None:
    """When the other end of a pipe closes, and not only with the next message, which may never come."""
    if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode):
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        poll.poll()
        os.kill(os.getpid(), signal.SIGPIPE)


def _format(given: argparse.Namespace) -> Callable[[Message], str]:
    if given.json:
        return as_json
    has_colour = sys.stdout.isatty() and not given.no_colour and not os.environ.get("NO_COLOR")
    return lambda message: as_text(message, has_colour=has_colour)


def _notice(message: Message) -> str:
    why = json.dumps(message.data)
    return f"messages are missing here: {why}" if message.is_reset else f"{message.topic} has ended: {why}"
