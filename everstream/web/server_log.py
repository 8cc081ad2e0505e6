"""gunicorn's log, without its access log: `access_log` has lines of our own. Set in `gunicorn.conf.py`."""

from gunicorn.glogging import Logger


class ServerLog(Logger):  # type: ignore[misc]
    # gunicorn takes any configuration of logging as a wish for an access log, and collects its fields for each request.
    access_log_enabled = False
