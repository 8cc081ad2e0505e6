"""Checks that the ports can be bound, with an error that names the setting. Used by `host` and gunicorn."""

import socket

from everstream.settings import Settings, SettingsError, variable_of


def check_ports(settings: Settings) -> None:
    """Raises SettingsError, which says what to do. gunicorn itself would only keep retrying."""
    for field in ("port", "health_port"):
        if port := getattr(settings, field):
            _check(settings, port, variable_of(field))


def _check(settings: Settings, port: int, variable: str) -> None:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, port))
        except OSError as error:
            raise SettingsError(
                f"can't listen on {settings.address_of(port)}: {error.strerror}. Set {variable} to another port, "
                f"for example {variable}={port % 65535 + 1}"
            ) from None
