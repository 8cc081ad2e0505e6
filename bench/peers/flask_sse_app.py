"""Topics with flask-sse, as in that library's documentation: each follower has a subscription of its own to Redis."""

import os

from flask import Flask, Response, request
from flask_sse import sse

app = Flask(__name__)
app.config["REDIS_URL"] = os.environ["REDIS_URL"]
app.register_blueprint(sse, url_prefix="/events")


@app.post("/publish/<path:topic>")
def publish(topic: str) -> Response:
    sse.publish(request.get_data(as_text=True), channel=topic)
    return Response(status=204)
