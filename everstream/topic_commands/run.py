"""What the commands have in common: where the service is, what is said on standard error, and how they end."""

import argparse
import logging
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from everstream.client import EverstreamError
from everstream.client.publishing import key_headers, service_url
from everstream.topic_commands import follow, publish, tail

ACTIONS: dict[str, Callable[[argparse.Namespace, str, dict[str, str]], int]] = {
    "publish": publish.main,
    "follow": follow.main,
    "tail": tail.main,
}


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status."""
    _say_what_the_client_does()
    signal.signal(signal.SIGTERM, _terminated)
    try:
        return ACTIONS[arguments.command](arguments, arguments.url or service_url(), key_headers())
    except (EverstreamError, ValueError, TypeError, OSError) as error:
        sys.stderr.write(f"everstream: {error}\n")
        return 1


def _terminated(*_: object) -> NoReturn:
    # An exception, so that what was read is still published.
    sys.exit(128 + signal.SIGTERM)


def _say_what_the_client_does() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("everstream | %(message)s"))
    logger = logging.getLogger("everstream.client")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
