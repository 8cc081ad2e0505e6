"""gunicorn's settings: gevent workers that hold many long-lived streams. Reasons stand beside each.

`gunicorn -c gunicorn.conf.py wsgi:app`; Everstream's own settings come from the environment, see README.md.
"""

from everstream.settings import load_settings

_settings = load_settings()

bind = _settings.address
workers = _settings.workers
worker_class = "everstream.worker.Worker"
loglevel = _settings.log_level
# No access log: addresses may hold prompts.
accesslog = None

# A full pool stops accepting, health checks too.
worker_connections = 10_000
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
