"""Serves the page, and forwards /stream to Everstream, as nginx would: a page may only read streams of its own origin.

python3 examples/audio/serve.py [port] [Everstream's host:port]
"""

import sys
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FILES = {"/": ("page.html", "text/html"), "/page.js": ("page.js", "text/javascript")}
PORT = int(sys.argv[1]) if len(sys.argv) > 1 else 8001
EVERSTREAM = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:8000"
SILENCE_S = 60
"""Everstream sends a heartbeat at least every 30 s."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path in FILES:
            name, content_type = FILES[self.path]
            self.begin(200, content_type)
            self.wfile.write((Path(__file__).parent / name).read_bytes())
        elif self.path.startswith("/stream?"):
            self.forward()
        else:
            self.send_error(404)

    def forward(self):
        upstream = HTTPConnection(EVERSTREAM, timeout=SILENCE_S)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": self.headers.get("Last-Event-ID", "")}
        try:
            upstream.request("GET", self.path, headers={name: value for name, value in headers.items() if value})
            response = upstream.getresponse()
        except (OSError, HTTPException):
            # Any status but 200 would close the page's EventSource for good.
            self.begin(200, "text/event-stream")
            self.wfile.write(b"retry: 1000\n\n")
            return
        self.begin(response.status, response.headers["Content-Type"])
        # Either side may go. The page then reconnects with the id of its last event.
        with closing(upstream), suppress(OSError, HTTPException):
            while piece := response.read1():
                self.wfile.write(piece)

    def begin(self, status, content_type):
        self.send_response(status)
        self.send_header("Content-Type", content_type or "text/plain")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()

    def log_message(self, *args):
        """Be quiet: the paths contain inputs."""


if __name__ == "__main__":
    print(f"open http://127.0.0.1:{PORT}", flush=True)
    with suppress(KeyboardInterrupt):
        ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
