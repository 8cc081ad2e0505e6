"""The console script `everstream`: starts one part, starts all of them, or checks for problems. Three commands are for
topics of any service.

A part replaces this process (exec), so signals and exit statuses are its own.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from everstream import __version__
from everstream.host import doctor, engine_health, key_commands, state_lock, supervisor, valkey_server
from everstream.model_list import MODEL_VARIABLE
from everstream.settings import (
    PROJECT_ROOT,
    Settings,
    SettingsError,
    check_engine_model,
    engine_environ,
    load_settings,
)
from everstream.topic_commands import parsers as topic_commands


def run(settings: Settings) -> None:
    """everything on this machine: Valkey, an engine for each model, the web workers"""
    supervisor.run(settings)


def engine(settings: Settings) -> None:
    """one engine process: it loads the model and generates"""
    supervisor.check_engine_packages()
    check_engine_model(settings)
    _become(supervisor.ENGINE, engine_environ(os.environ, settings.own_model))


def web(settings: Settings) -> None:
    """gunicorn with its web workers"""
    _become(supervisor.WEB, settings.path_variables())


def valkey(settings: Settings) -> None:
    """the embedded Valkey, in the state directory"""
    if settings.valkey_url:
        raise SettingsError("VALKEY_URL is set, so the embedded Valkey is not used: unset it")
    command = valkey_server.command(settings)
    state_lock.acquire(settings, inherit=True)
    _become(command, settings.path_variables())


def check(settings: Settings) -> None:
    """load a model folder, and run it on its schema's examples"""
    supervisor.check_engine_packages()
    # Imported here, because a web host lacks what it needs.
    from everstream.host import model_check  # noqa: PLC0415

    status = model_check.main(settings.app_path, settings)
    # At once: a model's threads may still run.
    sys.stdout.flush()
    os._exit(status)


def ready(settings: Settings) -> None:
    """whether the engine of these settings takes work: exit status 0 or 1, for health checks"""
    check_engine_model(settings)
    sys.exit(engine_health.main(settings))


def diagnose(settings: Settings) -> None:
    """check this machine and these settings, with advice on each problem"""
    # `doctor | head` ends quietly.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(doctor.main(settings))


KEYS = "keys"
COMMANDS: dict[str, Callable[[Settings], None]] = {
    "run": run,
    "engine": engine,
    "web": web,
    "valkey": valkey,
    "check": check,
    "ready": ready,
    "doctor": diagnose,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="everstream", description="Settings come from the environment (docs/settings.md)."
    )
    parser.add_argument("--version", action="version", version=__version__)
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {
        name: subparsers.add_parser(name, help=command.__doc__, description=command.__doc__)
        for name, command in COMMANDS.items()
    }
    parsers["run"].add_argument(
        "--model", action="append", metavar="NAME=FOLDER", help="serve this model; repeat it for more (default: MODELS)"
    )
    parsers["engine"].add_argument("--model", metavar="NAME", help="which of the MODELS to run")
    parsers["check"].add_argument("folder", help="a model folder")
    about_keys = "add, list, rotate and revoke API keys"
    key_commands.add_parser(subparsers.add_parser(KEYS, help=about_keys, description=about_keys))
    topic_commands.add_parsers(subparsers)
    arguments = parser.parse_args()
    os.environ.update(_options(arguments))
    try:
        if arguments.command == KEYS:
            key_commands.run(load_settings(), arguments)
        elif arguments.command in topic_commands.COMMANDS:
            topic_commands.run(arguments)
        else:
            COMMANDS[arguments.command](load_settings())
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _options(arguments: argparse.Namespace) -> dict[str, str]:
    """The command line's options as settings."""
    model = getattr(arguments, "model", None)
    if folder := getattr(arguments, "folder", None):
        return {"EVERSTREAM_APP_DIR": folder, "MODELS": "", MODEL_VARIABLE: ""}
    if not model:
        return {}
    if isinstance(model, list):
        return {"MODELS": shlex.join(model)}
    return {MODEL_VARIABLE: model}


def _become(command: list[str], environ: Mapping[str, str]) -> NoReturn:
    # Not in the caller's folder, whose files could shadow modules.
    os.environ.update(environ)
    os.chdir(PROJECT_ROOT)
    os.execv(command[0], command)  # noqa: S606


if __name__ == "__main__":
    main()
