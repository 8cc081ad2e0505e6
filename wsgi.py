"""The Flask application for gunicorn: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from everstream.wsgi import app

__all__ = ["app"]
