"""The engine process: loads the model and serves until it is told to stop. `everstream engine` runs it.

One per GPU or model; asyncio under uvloop. Crash-only: a lease that is no longer refreshed is taken over by another
engine process, or by this one's successor, which gets what was delivered and resumes from there.

Exit statuses: 0 told to stop; 3 the model can't be loaded; 4 the model died while it served; 5 the log returns an error
that waiting does not cure; 6 the model does not end a stopped generation's work.
"""

import asyncio
import faulthandler
import gc
import logging
import logging.config
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import msgspec
import uvloop
from valkey.exceptions import ValkeyError

from everstream import tracing
from everstream.contract import runtime_config
from everstream.contract.model import LoadedModel, load_model
from everstream.engine import access_log
from everstream.engine.engine import RELEASE_S, Engine
from everstream.engine.exits import EXIT_LOG_BROKEN, EXIT_MODEL_LOAD, EXIT_MODEL_STUCK, die
from everstream.errors import LogBroken, ModelLoadError, ModelStuck
from everstream.log.engine_log import EngineLog, until_answered
from everstream.log.records import EngineStatus, ModelDescription
from everstream.logs import dict_config
from everstream.processes import ENGINE_PID_VARIABLE, SLEEP_VARIABLE
from everstream.settings import Settings, SettingsError, load_engine_settings

# vLLM's spawned processes import this module before vLLM, as their parent's main module; they would not if it were a
# `__main__`. With Python's default threshold of 700, the collector walks a heap of imported modules over and over:
# a fifth of the time until the model is ready.
gc.set_threshold(50_000, 20, 100)

logger = logging.getLogger("everstream.engine")


async def main(settings: Settings) -> None:
    name = settings.unique_engine_name
    engine_log = EngineLog(settings, consumer=f"{name}-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        await _serve(settings, engine_log, name)
    except BaseException as error:
        await _report_and_die(settings, engine_log, name, error)


async def _serve(settings: Settings, engine_log: EngineLog, name: str) -> None:
    # Until the model is loaded. Not by cancelling this task: a cancellation may get lost (see `Engine.run`).
    signal.signal(signal.SIGINT, lambda *_: die(0, "told to stop"))
    model = await _load(settings, engine_log, name)
    # Loaded objects live until exit; exclude them from garbage collection.
    gc.collect()
    gc.freeze()
    # A model may have forked processes while it was loaded.
    traced = tracing.start("everstream-engine")
    engine = Engine(settings, model, engine_log, name, traced)
    serving = asyncio.create_task(engine.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    logger.info("ready: %s", settings.model_name)
    try:
        await serving
    except asyncio.CancelledError:
        await engine.release_leases()
        await model.finalize()
        if traced:
            await asyncio.to_thread(traced.stop)
        die(0, "told to stop")


async def _load(settings: Settings, engine_log: EngineLog, name: str) -> LoadedModel:
    """Load the model and report it. While a supervisor retries after a failure, that failure stays the status."""
    status = EngineStatus(name, "loading", settings.model_name, parent=os.getppid())
    # Valkey may start after us.
    earlier = await until_answered(lambda: engine_log.last_report(name), f"startup ({settings.safe_log_url})")
    if earlier is not None and earlier.state == "draining":
        status = msgspec.structs.replace(status, error=f"restarted, because {earlier.error}")
    if earlier is not None and earlier.state == "loading" and earlier.parent == status.parent:
        status = msgspec.structs.replace(status, error="the last process died while it loaded the model")
    if earlier is None or earlier.state != "failed" or earlier.parent != status.parent:
        await until_answered(lambda: engine_log.report(status))
    missing: list[str] = []
    try:
        # Models open files by paths relative to their folder.
        os.chdir(settings.app_path)
        missing = runtime_config.check(settings.app_path)
        _warn(missing)
        model = load_model(settings.app_path)
        _warn(model.folder.schema.warnings)
        description = _description(settings, model)
        await until_answered(lambda: engine_log.describe(description))
        await model.initialize()
    except (ModelLoadError, OSError) as error:
        message = "; ".join([str(error), *missing])
        failed = msgspec.structs.replace(status, state="failed", error=message)
        await until_answered(lambda: engine_log.report(failed))
        logger.debug("the model can't be loaded", exc_info=error)
        die(EXIT_MODEL_LOAD, f"the model can't be loaded: {message}")
    return model


def _warn(messages: Sequence[str]) -> None:
    for message in messages:
        logger.warning("%s", message)


def _description(settings: Settings, model: LoadedModel) -> ModelDescription:
    schema = model.folder.schema
    return ModelDescription(
        settings.model_name, settings.engine_model, dict(schema.inputs), model.is_streaming, list(schema.warnings)
    )


async def _report_and_die(settings: Settings, engine_log: EngineLog, name: str, error: BaseException) -> NoReturn:
    """Exit because of an error that this process can't recover from, and report it where people look."""
    if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
        # Ctrl-C before the signal handlers are installed.
        die(0, "told to stop")
    if isinstance(error, ModelStuck):
        message = f"the model is stuck, so this process exits to be replaced: {error}"
        await _report(engine_log, EngineStatus(name, "draining", settings.model_name, error=str(error)))
        die(EXIT_MODEL_STUCK, message)
    if not isinstance(error, ValkeyError):
        logger.critical("unexpected error in the engine", exc_info=error)
        die(1, "the engine can't continue")
    message = f"the log (Valkey) refuses the engine's commands: {error}"
    status = EngineStatus(name, "failed", settings.model_name, error=message, code=LogBroken.code, parent=os.getppid())
    await _report(engine_log, status)
    die(EXIT_LOG_BROKEN, message)


async def _report(engine_log: EngineLog, status: EngineStatus) -> None:
    """Best effort: Valkey may refuse or delay it."""
    with suppress(ValkeyError, TimeoutError):
        await asyncio.wait_for(engine_log.report(status), RELEASE_S)


if __name__ == "__main__":
    # A crash in native code leaves the Python stack in the output. Forked processes, such as vLLM's, inherit this.
    faulthandler.enable()
    # For any model that runs on vLLM, through `llm.vllm_plugin` in the processes that vLLM starts.
    os.environ[ENGINE_PID_VARIABLE] = str(os.getpid())
    os.environ[SLEEP_VARIABLE] = "1"
    try:
        loaded = load_engine_settings()
        tracing.check(os.environ)
        if tracing.are_on(os.environ):
            # vLLM's processes, which read the same variables, would take gRPC.
            os.environ.setdefault(tracing.PROTOCOLS[0], tracing.PROTOCOL)
        logging.config.dictConfig(dict_config(loaded.log_level, loaded.log_format, access_log.context))
        uvloop.run(main(loaded))
    except SettingsError as error:
        sys.exit(f"everstream: {error}")
