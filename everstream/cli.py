"""The console script `everstream`: starts one part, starts all of them, or checks for problems.

A part replaces this process (exec), so signals and exit statuses are its own.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from everstream import __version__
from everstream.host import doctor, state_lock, supervisor, valkey_server
from everstream.settings import PROJECT_ROOT, Settings, SettingsError, load_settings


def run(settings: Settings) -> None:
    """everything on this machine: Valkey, the engine, the web workers"""
    supervisor.run(settings)


def engine(settings: Settings) -> None:
    """one engine process: it loads the model and generates"""
    supervisor.check_engine_packages()
    _become(supervisor.ENGINE, settings)


def web(settings: Settings) -> None:
    """gunicorn with its web workers"""
    _become(supervisor.WEB, settings)


def valkey(settings: Settings) -> None:
    """the embedded Valkey, in the state directory"""
    if settings.valkey_url:
        raise SettingsError("VALKEY_URL is set, so the embedded Valkey is not used: unset it")
    command = valkey_server.command(settings)
    state_lock.acquire(settings, inherit=True)
    _become(command, settings)


def check(settings: Settings) -> None:
    """check this machine and these settings, with advice on each problem"""
    # `doctor | head` ends quietly.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(doctor.main(settings))


COMMANDS: dict[str, Callable[[Settings], None]] = {
    "run": run,
    "engine": engine,
    "web": web,
    "valkey": valkey,
    "doctor": check,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="everstream", description="Settings come from the environment (docs/settings.md)."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparsers.add_parser(name, help=command.__doc__, description=command.__doc__)
    arguments = parser.parse_args()
    try:
        COMMANDS[arguments.command](load_settings())
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _become(command: list[str], settings: Settings) -> NoReturn:
    # Not in the caller's folder, whose files could shadow modules.
    os.environ.update(settings.path_variables())
    os.chdir(PROJECT_ROOT)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
