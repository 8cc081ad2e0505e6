"""The lock on the state directory: two Valkeys on one append-only file would corrupt it.

Held by `everstream run`, and by an embedded Valkey that was started alone. The kernel releases it with the process.
"""

import fcntl
import os

from everstream.host import valkey_server
from everstream.settings import Settings, SettingsError

NAME = "launcher.lock"
"""As in earlier versions, so that they exclude each other."""


def acquire(settings: Settings, *, inherit: bool) -> None:
    """Lock it for as long as this process lives. `inherit`: also across exec.

    Raises SettingsError, which names the process that holds it.
    """
    valkey_server.prepare(settings)
    descriptor = os.open(settings.state_path / NAME, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip()
        os.close(descriptor)
        raise SettingsError(
            f"already running: {holder or 'it has just started'}. Stop it with Ctrl-C where it runs; or run another "
            f"one, with its own PORT and EVERSTREAM_STATE_DIR (this one: {settings.state_path}); or set VALKEY_URL for "
            f"both, to share a log"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} at {settings.url}\n".encode(), 0)
    os.set_inheritable(descriptor, inherit)
