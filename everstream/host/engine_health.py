"""Whether the engine of these settings takes work: `everstream ready`, for the health checks of containers.

In: the engine's own report in the log, which expires unless it is repeated. Out: one line, and the exit status.
"""

import sys

import msgspec
import valkey

from everstream.log.connection import COMMAND_TIMEOUT_S
from everstream.log.keys import Keys
from everstream.log.records import EngineStatus
from everstream.settings import Settings, SettingsError


def main(settings: Settings) -> int:
    """Returns 0 if it is ready, else 1. Raises SettingsError if the log can't be read."""
    status = _last_report(settings)
    if status is None:
        sys.stdout.write(f"{settings.unique_engine_name} does not report\n")
        return 1
    sys.stdout.write(f"{status.name} is {status.state}{f': {status.error}' if status.error else ''}\n")
    return int(status.state != "ready")


def _last_report(settings: Settings) -> EngineStatus | None:
    key = Keys(settings.namespace, settings.engine_model).engine(settings.unique_engine_name)
    try:
        with valkey.Valkey.from_url(settings.log_url, socket_timeout=COMMAND_TIMEOUT_S) as client:
            found = client.get(key)
    except (valkey.ValkeyError, OSError) as error:
        raise SettingsError(f"Valkey at {settings.safe_log_url}: {error}") from None
    return msgspec.json.decode(found, type=EngineStatus) if isinstance(found, bytes) else None
