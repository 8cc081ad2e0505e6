"""Runs calls of one client's module in the clients' own environment: `python serve_calls.py MODULE`, for `tests/llm`.

Each line on standard input is a JSON list of a function's name and its arguments; the answer is one line of JSON on
standard output: `{"returned": …}` or `{"raised": a traceback}`. A process per module, because importing a client takes
seconds. `python serve_calls.py MODULE CALL URL MODEL` makes one call by hand. Imports nothing of Everstream.
"""

import faulthandler
import importlib
import json
import os
import sys
import traceback

CALL_TIMEOUT_S = 210


def serve(module, requests, answers):
    for line in requests:
        name, *arguments = json.loads(line)
        # A call that hangs leaves its stack on standard error, and ends the process.
        faulthandler.dump_traceback_later(CALL_TIMEOUT_S, exit=True)
        try:
            answer = {"returned": getattr(module, name)(*arguments)}
        except Exception:
            answer = {"raised": traceback.format_exc()}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(answer), file=answers, flush=True)


def main():
    # Some clients print advice; only answers go to the real standard output.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    module = importlib.import_module(sys.argv[1])
    if arguments := sys.argv[2:]:
        json.dump(getattr(module, arguments[0])(*arguments[1:]), answers, indent=1)
    else:
        serve(module, sys.stdin, answers)


if __name__ == "__main__":
    main()
