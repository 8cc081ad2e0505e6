"""Publishes messages with the standard library alone. Imported by the examples.

EVERSTREAM_URL is the service's address; EVERSTREAM_API_KEY a key that may publish, if the service has keys.
"""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
import uuid

URL = os.environ.get("EVERSTREAM_URL", "http://127.0.0.1:8000")
KEY = os.environ.get("EVERSTREAM_API_KEY", "")
HEADERS = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {KEY}"} if KEY else {})
RETRY_S = 0.5


def make(topic, **config):
    """`latest`: only the newest message counts. `history`: how many are kept. `ttl_s`: how long a topic may be idle."""
    _send("PUT", f"/topics/{topic}", config)


def publish(topic, data):
    # With an id, a message that has to be sent again is in the topic once.
    _send("POST", f"/topics/{topic}", {"data": data, "id": uuid.uuid4().hex})


def publish_all(data_by_topic):
    """In one request."""
    messages = [{"topic": topic, "data": data, "id": uuid.uuid4().hex} for topic, data in data_by_topic.items()]
    for outcome in _send("POST", "/topics", messages)["published"]:
        if "error" in outcome:
            raise SystemExit(f"{outcome['topic']}: {outcome['error']['message']}")


def delete(topic):
    _send("DELETE", f"/topics/{topic}")


def _send(method, path, body=None):
    """Until the service has it: it may be restarting."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(URL + path, data, HEADERS, method=method)
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return json.loads(response.read() or "null")
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (404, 429):
                raise SystemExit(f"{method} {path}: {error.code} {error.read().decode()}") from None
            if error.code == 404:
                return None
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(RETRY_S)
