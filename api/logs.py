"""Logs as one JSON object a line, on standard output."""

import logging
import sys

from asgi_correlation_id import CorrelationIdFilter
from pythonjsonlogger.json import JsonFormatter

NAMES = {"levelname": "level", "name": "logger", "correlation_id": "id", "exc_info": "traceback"}


def log_as_json() -> None:
    """Send the records of all loggers and Python's warnings to standard output as JSON; nothing else is written there.

    A line has time (UTC), level, logger, message, the id of the request that it belongs to (else null), what `extra` adds, and
    the traceback of an error.
    """
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        JsonFormatter(["levelname", "name", "message"], rename_fields=NAMES, timestamp="time", json_ensure_ascii=True)
    )
    handler.addFilter(CorrelationIdFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Below errors, uvicorn says that it starts and stops, as our own lines do, and both warn of what any client can send.
    for name in ("uvicorn", "asgi_correlation_id"):
        logging.getLogger(name).setLevel(logging.ERROR)
