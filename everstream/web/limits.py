"""How many connections and files one web worker may have open. Used by gunicorn's configuration and `doctor`."""

from everstream.settings import Settings

HEALTH_CONNECTIONS = 64
"""At the health port. Above it the oldest is closed: a check takes no time, so a connection that stays is no check."""
SPARE_FILES = 8
"""Held open, to be closed when a health check can't be accepted for lack of files."""
OTHER_CONNECTIONS = 1000
"""Besides the streams: short requests, health checks, keep-alive connections."""
OTHER_FILES = 200
"""Besides clients' connections: connections to Valkey, and files."""
BACKLOG = 16384
"""The kernel's queue of new connections. When a worker dies, all its clients reconnect within a second or two. A client
that finds the queue full tries again only after a second. The kernel's own limit (net.core.somaxconn, usually 4096) may
be lower."""

_HEALTH_FILES = 2 * HEALTH_CONNECTIONS + SPARE_FILES


def connections(settings: Settings) -> int:
    """A full pool stops accepting even health checks, so the application refuses streams long before that."""
    return settings.max_streams + OTHER_CONNECTIONS


def open_files(settings: Settings) -> int:
    return connections(settings) + OTHER_FILES + (_HEALTH_FILES if settings.health_port else 0)
