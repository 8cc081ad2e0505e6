"""gunicorn's settings: gevent workers that hold many long-lived streams. The reason for each is beside it.

`gunicorn -c gunicorn.conf.py wsgi:app`; Everstream's own settings come from the environment, see docs/settings.md.
"""

import math
import os
import resource
import sys
from pathlib import Path

from everstream import tracing
from everstream.logs import dict_config
from everstream.settings import SettingsError, load_settings
from everstream.web import access_log, limits
from everstream.web.access.startup import check as check_access
from everstream.web.ports import check_ports

try:
    _settings = load_settings()
    tracing.check(os.environ)
except SettingsError as error:
    sys.exit(f"everstream: {error}")


def _allow_open_files(needed: int) -> None:
    """Each connection is an open file, and many systems set the soft limit far below the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    if soft != unlimited and soft < needed:
        if hard != unlimited and hard < needed:
            sys.exit(
                f"everstream: EVERSTREAM_MAX_STREAMS={_settings.max_streams} takes {needed} open files in a process "
                f"and only {hard} are allowed: raise the limit (ulimit -n), or lower the setting"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def on_starting(server):
    """Name the setting at fault. gunicorn itself retries for some seconds, as the port may be about to be freed."""
    try:
        check_access(_settings)
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
    # A master that takes over from another (USR2) inherits its sockets.
    if not server.master_pid:
        try:
            check_ports(_settings)
        except SettingsError as error:
            server.log.error("everstream: %s", error)


def pre_exec(server):
    """Have a new master (USR2) start as this one did. If that was with `-m`, gunicorn would run its `__main__.py` as a
    script, and find its own package `http` in place of the standard library's."""
    if Path(sys.argv[0]).name == "__main__.py":
        server.START_CTX["args"] = [server.START_CTX[0], "-m", "gunicorn", *sys.argv[1:]]


_ports = [port for port in (_settings.port, _settings.health_port) if port]
bind = [_settings.address_of(port) for port in _ports]
workers = _settings.workers
worker_class = "everstream.web.worker.Worker"
loglevel = _settings.log_level
# gunicorn's would have URLs, which may contain prompts; `web.access_log` has routes.
accesslog = None
logger_class = "everstream.web.server_log.ServerLog"
logconfig_dict = dict_config(_settings.log_level, _settings.log_format, access_log.context)

worker_connections = limits.connections(_settings)
_allow_open_files(limits.open_files(_settings))
backlog = limits.BACKLOG
# Applies to the event loop, not to a request.
timeout = 60
# The follower ends the last streams after `drain_s`; the rest is for their last bytes, and for everything else.
graceful_timeout = math.ceil(_settings.drain_s) + 10
# Also how long a client may take to send its headers.
keepalive = 15
# Replacing a worker cuts its streams.
max_requests = 0
limit_request_line = 8190
# The runtime control interface can deadlock gevent workers as they boot, and nothing here uses it.
control_socket_disable = True
