"""gunicorn's settings: gevent workers that hold many long-lived streams. Reasons stand beside each.

`gunicorn -c gunicorn.conf.py wsgi:app`; Everstream's own settings come from the environment, see README.md.
"""

import resource
import sys

from everstream import health
from everstream.ports import check_ports
from everstream.settings import SettingsError, load_settings

# Connections beyond the streams: short requests, health checks, kept-alive ones. Beyond both, files and Valkey's.
_OTHER_CONNECTIONS = 1000
_OTHER_FILES = 200

try:
    _settings = load_settings()
except SettingsError as error:
    sys.exit(f"everstream: {error}")


def _allow_open_files(needed: int) -> None:
    """Each connection is an open file; many systems start a process with far fewer than they would allow it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        if hard != unlimited and hard < needed:
            sys.exit(
                f"everstream: EVERSTREAM_MAX_STREAMS={_settings.max_streams} takes {needed} open files in a process "
                f"and only {hard} are allowed: raise that (ulimit -n), or set it lower"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def on_starting(server):
    """Name the setting; gunicorn itself tries again for some seconds, as who has the port may be about to leave it."""
    # A master that takes over from another (USR2) has its sockets.
    if not server.master_pid:
        try:
            check_ports(_settings)
        except SettingsError as error:
            server.log.error("everstream: %s", error)


_ports = [port for port in (_settings.port, _settings.health_port) if port]
bind = [_settings.address_of(port) for port in _ports]
workers = _settings.workers
worker_class = "everstream.worker.Worker"
loglevel = _settings.log_level
# No access log: addresses may hold prompts.
accesslog = None

# A full pool stops accepting, health checks too: so the application refuses streams long before that.
worker_connections = _settings.max_streams + _OTHER_CONNECTIONS
_allow_open_files(worker_connections + _OTHER_FILES + (health.FILES if _settings.health_port else 0))
# When a worker has died, its clients all come back within a second or two. Who finds the queue full tries again only
# after a second; the kernel's own limit (net.core.somaxconn, mostly 4096) may be lower.
backlog = 16384
# The event loop's, not a request's.
timeout = 60
# Streams end by themselves when a worker is told to stop; this is for the rest.
graceful_timeout = 10
# Also the limit for a client to send its headers.
keepalive = 15
# A worker that is replaced cuts its streams.
max_requests = 0
limit_request_line = 8190
# The runtime control interface can deadlock gevent workers as they boot, and nothing here uses it.
control_socket_disable = True
