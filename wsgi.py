"""The Flask application for gunicorn: `gunicorn -c gunicorn.conf.py wsgi:app`."""

from everstream.routes import create_app

app = create_app()
