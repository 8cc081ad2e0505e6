"""Replies to web processes that ask whether the model can take some inputs, or for their tokens. Called by `engine`."""

import logging

import msgspec

from everstream.contract.model import Model
from everstream.errors import InvalidInput
from everstream.log.engine_log import EngineLog
from everstream.log.records import ValidationReply, ValidationRequest

logger = logging.getLogger(__name__)


async def validate(model: Model, engine_log: EngineLog, *, is_long: bool) -> None:
    """Wait a while for one request, and reply to it."""
    request = await engine_log.next_validation(is_long=is_long)
    if request is not None:
        await engine_log.reply(request, await _ask(model, request))


async def _ask(model: Model, request: ValidationRequest) -> ValidationReply:
    try:
        result = await model.ask(request.method, request.inputs)
        # Encode it here, where what can't be JSON is the model's error and not the engine's.
        return ValidationReply(result=msgspec.Raw(msgspec.json.encode(result)))
    except InvalidInput as error:
        return ValidationReply(error.message, error.param, error.code)
    except Exception as error:
        logger.exception("the model's %s failed", request.method)
        return ValidationReply(f"the model's {request.method} raised {type(error).__name__}", is_bug=True)
