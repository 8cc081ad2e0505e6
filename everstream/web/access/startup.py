"""Refuses to start a service that others can reach and that nobody needs a key for. Called by gunicorn and `host`."""

from contextlib import closing, suppress

import valkey

from everstream.log.api_keys import KeyStore
from everstream.log.connection import COMMAND_TIMEOUT_S
from everstream.log.keys import Keys
from everstream.log.retryable import UNAVAILABLE
from everstream.settings import Settings, SettingsError


def check(settings: Settings) -> None:
    """Raises SettingsError. If Valkey does not answer, requests will be refused for as long as there are no keys."""
    if settings.access != "auto" or not settings.is_exposed or settings.accepts_jwts:
        return
    with (
        suppress(*UNAVAILABLE),
        closing(valkey.Valkey.from_url(settings.log_url, socket_timeout=COMMAND_TIMEOUT_S)) as client,
    ):
        if not KeyStore(client, Keys(settings.namespace)).is_guarded():
            raise SettingsError(
                "others can reach this service (EVERSTREAM_HOST, _HOSTS or _PROXIES), and it has no API keys: make one "
                "with `everstream keys add NAME`; or, if everyone may use it, set EVERSTREAM_ACCESS=open"
            )
