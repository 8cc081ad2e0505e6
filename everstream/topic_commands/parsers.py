"""The command lines of the commands for topics."""

import argparse
import re
import sys
import time

COMMANDS = {
    "publish": "publish messages to a topic, from the arguments or from standard input",
    "follow": "print the messages of topics as they come",
    "tail": "publish the lines of a growing file",
}
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    parsers = {name: subparsers.add_parser(name, help=about, description=about) for name, about in COMMANDS.items()}
    for parser in parsers.values():
        parser.add_argument("--url", help="where the service is (default: EVERSTREAM_URL, or http://127.0.0.1:8000)")
        parser.epilog = "A service with keys needs one in the environment, as EVERSTREAM_API_KEY."
    _add_publish(parsers["publish"])
    _add_follow(parsers["follow"])
    _add_tail(parsers["tail"])


def run(arguments: argparse.Namespace) -> None:
    # Imported here, because only these need httpx.
    try:
        from everstream.topic_commands import run as commands  # noqa: PLC0415
    except ModuleNotFoundError as error:
        sys.exit(f"everstream: {error}")
    sys.exit(commands.run(arguments))


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topic")
    parser.add_argument("data", nargs="?", default="-", help="the message; -, or none: each line of standard input")
    parser.add_argument("--event", metavar="NAME", help="a name for followers")
    parser.add_argument("--id", metavar="ID", help="of the messages with the same id, the topic takes the first")
    _add_message_options(parser)
    parser.add_argument(
        "--timeout", type=_positive, metavar="S", help="how long to wait for the service (default: 30; with -: forever)"
    )


def _add_follow(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("topics", nargs="+", metavar="TOPIC", help="a name, or a pattern: 'news/*', 'logs/**'")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--last", type=_count, metavar="N", help="begin with the last N messages")
    start.add_argument("--since", type=_time, metavar="T", help="begin at this time (RFC 3339), or this long ago: 10m")
    start.add_argument("--after", metavar="ID", help="begin after the message with this id")
    parser.add_argument("--json", action="store_true", help="print a JSON object for each message")
    parser.add_argument("--no-colour", action="store_true", help="also on a terminal (so does NO_COLOR)")


def _add_tail(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file")
    parser.add_argument("--topic", required=True)
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with what is appended, also after a rotation"
    )
    parser.add_argument(
        "-n",
        "--lines",
        type=_count,
        metavar="N",
        help="begin with the last N lines (default: all; with -f and without --state: 0)",
    )
    parser.add_argument("--state", metavar="FILE", help="remember here what is published, and go on there next time")
    parser.add_argument("--event", metavar="NAME", help="a name for followers")
    _add_message_options(parser)


def _add_message_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ttl", type=_positive, metavar="S", help="how long new followers are given the message")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", dest="kind", action="store_const", const="json", help="it is JSON")
    kind.add_argument(
        "--text",
        dest="kind",
        action="store_const",
        const="text",
        help="it is text (default: JSON objects and arrays are)",
    )


def _positive(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", text) or float(text) == 0:
        raise argparse.ArgumentTypeError("this is a number of seconds, above 0")
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError("this is a whole number")
    return int(text)


def _time(text: str) -> str:
    """As the service takes it."""
    match = re.fullmatch("([0-9]{1,9})([smhd])", text)
    return str(time.time() - int(match[1]) * _SECONDS[match[2]]) if match else text
