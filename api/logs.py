"""Logs as one JSON object a line, on standard output."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any


class JsonLines(logging.Formatter):
    """A record as JSON: time (UTC), level, logger, message, what `extra={"facts": {...}}` adds, and its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, whatever the message holds."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        } | getattr(record, "facts", {})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=True, default=str)


# What anybody can make uvicorn say, as often as they like; `skinlesion_connections_closed` counts it.
OF_CLIENTS = ("Invalid HTTP request received.", "ASGI callable returned without completing response.")


def log_as_json() -> None:
    """Send every logger's records and Python's warnings to standard output as JSON; nothing but these lines is written there."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.captureWarnings(True)
    # At INFO it tells that the server starts and stops, which is said here by our own lines.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(lambda record: record.getMessage() not in OF_CLIENTS)
