"""A module beside `app.py`, with a thread class of its own."""

import threading


class Worker(threading.Thread):
    def __init__(self, work):
        super().__init__(daemon=True)
        self._work = work

    def run(self):
        self._work()
