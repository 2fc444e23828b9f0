"""Logging of a process: one line a record, on stderr, set up once."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from typing import Final, TextIO

OWN_LOGGER: Final = "sliceflow"
"""All loggers of ours are below it. The libraries' tell at INFO of their own internals, several lines a
second, and at DEBUG of what is in the records."""

LINE_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(message)s"

QUIET_S: Final = 10.0
"""So long after a warning or an error the very same one is only counted: a client that cannot reach its broker says so
ten times a second and for each partition."""

MAX_TOLD: Final = 256
"""Different messages of which it is known when they were told."""


@dataclass
class _Told:
    """When a message was last let through, by the clock of log records, and how many were held back since."""

    at_s: float
    num_held_back: int = 0


class RepeatFilter(logging.Filter):
    """Holds back warnings and errors that were told a moment ago; the next one that passes says how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[tuple[str, str], _Told] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether `record` is told; its message may be added to."""
        if not logging.WARNING <= record.levelno < logging.CRITICAL:
            return True
        text = record.getMessage()
        told = self._told.get((record.name, text))
        if told is not None and record.created - told.at_s < QUIET_S:
            told.num_held_back += 1
            return False
        self._remember((record.name, text), record.created)
        if told is not None and told.num_held_back:
            record.msg, record.args = f"{text} (and {told.num_held_back} times since it was last told)", None
        return True

    def _remember(self, message: tuple[str, str], now_s: float) -> None:
        """Note that it is told now; the message that was told longest ago makes room."""
        self._told.pop(message, None)
        self._told[message] = _Told(now_s)
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]


class OneLineFormatter(logging.Formatter):
    """Time, level, logger and message; a traceback follows on lines of its own only where one was asked for.

    Args:
        with_tracebacks: Whether the traceback of an error is written out, or only its kind and message.
    """

    def __init__(self, *, with_tracebacks: bool) -> None:
        super().__init__(LINE_FORMAT)
        self._with_tracebacks = with_tracebacks

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of `record`; line ends within the message are escaped."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")

    def formatException(self, ei: object) -> str:
        """The traceback, or the last line of it."""
        text = super().formatException(ei)  # type: ignore[arg-type]
        return text if self._with_tracebacks else "  " + text.rstrip().rpartition("\n")[2]


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `ts_ms` since 1970, `level`, `logger`, `message`, and `error` where there was one.

    Args:
        with_tracebacks: Whether `error` is the whole traceback, or only the error's kind and message.
    """

    def __init__(self, *, with_tracebacks: bool) -> None:
        super().__init__()
        self._with_tracebacks = with_tracebacks

    def format(self, record: logging.LogRecord) -> str:
        """The line of `record`."""
        line: dict[str, object] = {
            "ts_ms": int(record.created * 1000),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            text = self.formatException(record.exc_info).rstrip()
            line["error"] = text if self._with_tracebacks else text.rpartition("\n")[2]
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(*, debug: bool = False, as_json: bool = False, stream: TextIO | None = None) -> None:
    """Send log records of this process to `stream`; a second call replaces what the first set up.

    Args:
        debug: Ours from DEBUG on, the libraries' from INFO on, with tracebacks and every repetition; else ours from
            INFO and the libraries' from WARNING on.
        as_json: One JSON object a line, for programs that gather logs.
        stream: Where the lines go; None: stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    form = JsonFormatter if as_json else OneLineFormatter
    handler.setFormatter(form(with_tracebacks=debug))
    if not debug:
        handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO if debug else logging.WARNING)
    logging.getLogger(OWN_LOGGER).setLevel(logging.DEBUG if debug else logging.INFO)
