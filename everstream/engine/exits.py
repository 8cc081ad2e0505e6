"""How an engine process exits: at once, with a status that says why."""

import logging
import os
from typing import NoReturn

EXIT_MODEL_LOAD = 3
EXIT_MODEL_DIED = 4
EXIT_LOG_BROKEN = 5
EXIT_MODEL_STUCK = 6

logger = logging.getLogger(__name__)


def die(status: int, message: str) -> NoReturn:
    """Exit as a crash would, without cleanup: the log has everything that matters."""
    logger.log(logging.CRITICAL if status else logging.INFO, "%s", message)
    logging.shutdown()
    os._exit(status)
