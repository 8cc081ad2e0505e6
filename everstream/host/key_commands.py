"""`everstream keys`: adds, lists, rotates and revokes API keys. They are in the log, so nothing has to be restarted.

In: the command line. Out: a new key on stdout, once, and everything else on stderr, so that `KEY=$(everstream keys add
me)` works.
"""

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec
import valkey

from everstream.errors import InvalidInput
from everstream.host import state_lock, valkey_server
from everstream.log.api_keys import NAME, SCOPES, ApiKey, KeyLimits, KeyRefused, KeyStore
from everstream.log.connection import COMMAND_TIMEOUT_S
from everstream.log.keys import Keys
from everstream.log.topic_names import check_pattern
from everstream.settings import Settings, SettingsError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_LIMITS = KeyLimits.__struct_fields__
START_S = 10


def add_parser(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add = actions.add_parser("add", help="make a key, and print it")
    add.add_argument("name", type=_name, help="what logs and metrics call it")
    add.add_argument(
        "--scopes", type=_scopes, default=["infer"], metavar="S,S", help=f"of {', '.join(SCOPES)} (default: infer)"
    )
    add.add_argument("--models", type=_list, default=[], metavar="M,M", help="those that it may use (default: all)")
    for what in ("publish", "follow"):
        add.add_argument(
            f"--{what}", type=_patterns, default=[], metavar="T,T", help=f"topics that it may {what} (default: all)"
        )
    add.add_argument("--owner", default="", metavar="KEY", help="share the generations of that key (default: its own)")
    add.add_argument("--expires", type=_seconds, metavar="TIME", help="for example 30d, 12h (default: never)")
    for limit in _LIMITS:
        add.add_argument(f"--{limit.replace('_', '-')}", type=_positive, metavar="N", help="(default: the setting)")
    actions.add_parser("list", help="show all keys")
    rotate = actions.add_parser("rotate", help="give a key a new secret, and print it")
    rotate.add_argument("name")
    rotate.add_argument(
        "--grace", type=_seconds, default=0, metavar="TIME", help="how long the old one still works (default: not)"
    )
    revoke = actions.add_parser("revoke", help="forget a key; its streams end within seconds")
    revoke.add_argument("name")
    actions.add_parser("sign-out", help="end all sessions, tickets and share links")


def run(settings: Settings, arguments: argparse.Namespace) -> None:
    """Raises SettingsError."""
    try:
        with _log(settings):
            client = valkey.Valkey.from_url(settings.log_url, socket_timeout=COMMAND_TIMEOUT_S)
            ACTIONS[arguments.action](KeyStore(client, Keys(settings.namespace)), arguments)
    except KeyRefused as error:
        raise SettingsError(str(error)) from None
    except (valkey.ValkeyError, OSError) as error:
        raise SettingsError(f"Valkey at {settings.safe_log_url}: {error}") from None


def _add(store: KeyStore, given: argparse.Namespace) -> None:
    limits = KeyLimits(**{name: getattr(given, name) for name in _LIMITS})
    expires_at = int(time.time()) + given.expires if given.expires else 0
    wanted = ApiKey(
        "",
        given.name,
        given.owner,
        "",
        given.scopes,
        given.models,
        expires_at=expires_at,
        limits=limits,
        publish=given.publish,
        follow=given.follow,
    )
    _print_key(store.add(wanted))


def _rotate(store: KeyStore, given: argparse.Namespace) -> None:
    _print_key(store.rotate(given.name, given.grace))


def _print_key(key: str) -> None:
    sys.stderr.write("everstream | this key is shown only now:\n")
    sys.stderr.flush()
    sys.stdout.write(f"{key}\n")


def _revoke(store: KeyStore, given: argparse.Namespace) -> None:
    store.revoke(given.name)
    sys.stderr.write(f"everstream | {given.name} is revoked\n")


def _sign_out(store: KeyStore, given: argparse.Namespace) -> None:  # noqa: ARG001 - the others need it
    store.forget_sessions()
    sys.stderr.write("everstream | all sessions, tickets and share links have ended\n")


def _show(store: KeyStore, given: argparse.Namespace) -> None:  # noqa: ARG001 - the others need it
    rows = [
        ("NAME", "ID", "OWNER", "SCOPES", "MODELS", "PUBLISH", "FOLLOW", "EXPIRES", "LIMITS"),
        *map(_row, store.all()),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        sys.stdout.write(f"{line.rstrip()}\n")


def _row(key: ApiKey) -> tuple[str, ...]:
    limits = ", ".join(f"{name}={value}" for name, value in msgspec.to_builtins(key.limits).items())
    expires = time.strftime("%Y-%m-%d %H:%M", time.localtime(key.expires_at)) if key.expires_at else "never"
    expires = "expired" if key.is_expired else expires
    lists = (",".join(each) or "all" for each in (key.models, key.publish, key.follow))
    return key.name, key.id, key.owner, ",".join(key.scopes), *lists, expires, limits or "-"


ACTIONS: dict[str, Callable[[KeyStore, argparse.Namespace], None]] = {
    "add": _add,
    "list": _show,
    "rotate": _rotate,
    "revoke": _revoke,
    "sign-out": _sign_out,
}


@contextmanager
def _log(settings: Settings) -> Iterator[None]:
    """The embedded Valkey, started for a moment if nothing runs here yet. Raises SettingsError."""
    if settings.valkey_url or valkey_server.answers(settings):
        yield
        return
    state_lock.acquire(settings, inherit=False)
    with subprocess.Popen(valkey_server.command(settings), stdout=subprocess.DEVNULL) as server:
        try:
            until = time.monotonic() + START_S
            while not valkey_server.answers(settings) and server.poll() is None and time.monotonic() < until:
                time.sleep(0.02)
            yield
        finally:
            server.terminate()


def _name(text: str) -> str:
    if not NAME.fullmatch(text):
        raise argparse.ArgumentTypeError("1 to 64 characters of A-Z a-z 0-9 . _ @ -, beginning with a letter or digit")
    return text


def _list(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _patterns(text: str) -> list[str]:
    try:
        return [check_pattern(part) for part in _list(text)]
    except InvalidInput as error:
        raise argparse.ArgumentTypeError(error.message) from None


def _scopes(text: str) -> list[str]:
    found = _list(text)
    if not found or set(found) - set(SCOPES):
        raise argparse.ArgumentTypeError(f"scopes are {', '.join(SCOPES)}, separated by commas")
    return sorted(set(found))


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError("a time is a number and one of s, m, h, d: for example 30d")
    return int(match[1]) * _UNITS[match[2]]


def _positive(text: str) -> int:
    if not re.fullmatch("[1-9][0-9]{0,14}", text):
        raise argparse.ArgumentTypeError("a limit is a whole number from 1")
    return int(text)
