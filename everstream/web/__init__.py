"""The base of every API: gunicorn's worker, submission, the one read path, SSE, responses.

In: requests, and entries from the log. Out: jobs to the log, entries to clients. `factory` builds the application from
the given APIs, `submission` starts a generation, `follower` reads the log for all streams of a process, and `streaming`
turns a generation into a response. Imports `contract` and `log`; imported by `apis`, and by `host` for ports and
limits. No torch, no vLLM, no asyncio: greenlets only.
"""
