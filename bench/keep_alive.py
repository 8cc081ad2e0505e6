"""POSTs on keep-alive connections just as gunicorn closes them: `python -m bench.keep_alive` (3 minutes).

nginx keeps connections to the web processes open and reuses them for POSTs. gunicorn closes a connection after 15 s of
idleness; if it has not read a POST by then, the client gets a 502, because a POST must not be retried. Each round
leaves CONNECTIONS idle, then sends one POST per connection just before they are closed, while the workers are briefly
suspended, as on a busy machine. Compares the shipped nginx with nginx's default `keepalive_timeout`. Prints a table.
"""

import http.client
import re
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import psutil

from everstream.settings import PROJECT_ROOT
from harness.stack import Stack, wait_for

CONNECTIONS = 60
ROUNDS = 5
BUSY_S = 0.2
"""How long the workers are suspended, half of it before the connections are closed."""
SHIPPED = "keepalive_timeout 10s;"
COLUMNS = {"60 s, nginx's default": "keepalive_timeout 60s;", "10 s, as shipped": SHIPPED}
KEEPALIVE_S = int(re.search(r"^keepalive = (\d+)$", (PROJECT_ROOT / "gunicorn.conf.py").read_text(), re.MULTILINE)[1])


def ask(port, method, body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, "/generations" if method == "POST" else "/healthz", body)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status


def ask_at_once(port, method, body=None):
    """Send one request per connection. Returns the threads that send them and the list that collects their statuses."""
    statuses, together = [], threading.Barrier(CONNECTIONS)

    def run():
        together.wait(30)
        statuses.append(ask(port, method, body))

    threads = [threading.Thread(target=run) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    return threads, statuses


@contextmanager
def kept_busy(nginx):
    workers = [psutil.Process(pid) for pid in nginx.workers()]
    for worker in workers:
        worker.suspend()
    try:
        yield
    finally:
        for worker in workers:
            worker.resume()


def leave_idle(nginx):
    """Make all connections idle at the same time: requests to suspended workers use one connection each."""
    with kept_busy(nginx):
        threads, statuses = ask_at_once(nginx.nginx_port, "GET")
        wait_for(lambda: upstream_connections(nginx) >= CONNECTIONS, what="a connection for each request")
    join(threads)
    assert statuses == [200] * CONNECTIONS
    return time.monotonic()


def upstream_connections(nginx):
    (worker,) = nginx.nginx.children()
    return sum(1 for each in worker.net_connections("tcp") if each.raddr and each.raddr.port == nginx.port)


def join(threads):
    for thread in threads:
        thread.join(30)


def round_of_posts(nginx):
    closed_at = leave_idle(nginx) + KEEPALIVE_S
    sleep_until(closed_at - BUSY_S / 2)
    with kept_busy(nginx):
        threads, statuses = ask_at_once(nginx.nginx_port, "POST", b"{}")
        sleep_until(closed_at + BUSY_S / 2)
    join(threads)
    return Counter(statuses)


def sleep_until(moment):
    time.sleep(max(0, moment - time.monotonic()))


def main():
    found = {name: Counter() for name in COLUMNS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        stack = Stack(folder)
        try:
            stack.start()
            for column, text in COLUMNS.items():
                own = folder / str(len(list(folder.iterdir())))
                own.mkdir()
                changes = {SHIPPED: text, "worker_processes auto;": "worker_processes 1;"}
                with stack.another_nginx(own, changes=changes) as nginx:
                    for _ in range(ROUNDS):
                        found[column] += round_of_posts(nginx)
        finally:
            stack.stop()
    posts = CONNECTIONS * ROUNDS
    print(f"| {posts} POSTs; nginx keeps connections for | {' | '.join(found)} |\n|---|{'---:|' * len(found)}")
    print(f"| answered 502 | {' | '.join(str(each[502]) for each in found.values())} |")


if __name__ == "__main__":
    main()
