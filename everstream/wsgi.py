"""The Flask application for gunicorn: `everstream web`. The root's `wsgi.py` re-exports it."""

from everstream.apis import APIS
from everstream.web.factory import create_app

app = create_app(APIS)
