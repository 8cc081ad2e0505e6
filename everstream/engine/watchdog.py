"""Ends an engine process whose event loop stands still, so that a supervisor starts another one. Run by `engine`.

Code that never releases the interpreter's lock (a regular expression that backtracks without end, an extension that
hangs) stops everything that could notice it, time limits included. `faulthandler`'s timer needs no Python code: it
prints where each thread stands, and exits.
"""

import asyncio
import faulthandler

EVERY_S = 1.0


async def run(timeout_s: float) -> None:
    """Keep the process alive for as long as the event loop runs. Exit status 1 after `timeout_s` without it."""
    try:
        while True:
            faulthandler.dump_traceback_later(timeout_s, exit=True)
            await asyncio.sleep(EVERY_S)
    finally:
        faulthandler.cancel_dump_traceback_later()
