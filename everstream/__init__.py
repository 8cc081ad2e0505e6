"""Everstream: token streams over Server-Sent Events that never lose or repeat a token.

The folder follows a token's journey, one file per station: `inputs` checks a request, `web_log` puts it into the
queue, `engine` claims it and runs the model under `contract`, `appender` writes what the model says into the log,
`follower` reads the log for every viewer, `sse` puts it on the wire, `routes` speaks HTTP. `log` is what the two
sides share, `launcher` runs all of it on one machine.
"""

__version__ = "0.1.0"
