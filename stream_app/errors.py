"""Errors a person may see, one class per cause.

::

    SliceflowError            exit code 1, carries what mends it
    ├── SettingsError         exit code 2: a setting, flag or configuration file is wrong
    ├── UsageError            exit code 2: the command was asked for something that makes no sense
    ├── KafkaUnreachableError the broker does not answer
    ├── TopicMismatchError    a topic exists with another shape than the one needed
    ├── LogFormatError        an event log cannot be read
    ├── ModelError            a model folder is missing, damaged or of another version
    └── CaughtUpError         the roles did not catch up in time
"""

from __future__ import annotations


class SliceflowError(Exception):
    """An error with one clear paragraph: what was seen, what was expected, and what mends it.

    Args:
        message: What was seen and what was expected.
        mend: The command or setting that mends it; empty where there is none.
    """

    exit_code = 1

    def __init__(self, message: str, *, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message} To mend it: {self.mend}" if self.mend else self.message


class SettingsError(SliceflowError):
    """A setting, flag or configuration file is wrong."""

    exit_code = 2


class UsageError(SliceflowError):
    """A command was asked for something that makes no sense."""

    exit_code = 2


class KafkaUnreachableError(SliceflowError):
    """The Kafka broker does not answer, or refuses the connection."""


class TopicMismatchError(SliceflowError):
    """A topic exists, but not in the shape that is needed."""


class LogFormatError(SliceflowError):
    """An event log cannot be read as one."""

    exit_code = 2


class ModelError(SliceflowError):
    """A model folder is missing, damaged, or of another version."""


class CaughtUpError(SliceflowError):
    """The roles did not work off their input in the time given."""
