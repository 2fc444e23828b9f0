"""Errors of the embedded broker, one class per cause.

::

    BrokerError                exit code 1
    ├── JarLockError           the list of jars that ships with the package cannot be read
    ├── JarDownloadError       a jar could not be fetched
    ├── JarDamagedError        a jar is not the one that the list names
    ├── JavaUnsuitableError    exit code 2: the Java that was asked for cannot run Kafka
    ├── BrokerConfigError      exit code 2: a setting of the broker is wrong
    ├── PortTakenError         exit code 2: the port that was asked for is in use
    ├── FolderInUseError       another broker runs on the data folder
    └── BrokerStartError       Kafka ended, or did not answer in time
"""

from __future__ import annotations

from stream_app.errors import SliceflowError


class BrokerError(SliceflowError):
    """The embedded Kafka broker cannot do what was asked of it."""


class JarLockError(BrokerError):
    """The list of jars and their hashes is not in the form it must have."""


class JarDownloadError(BrokerError):
    """A jar could not be fetched from any Maven repository."""


class JarDamagedError(BrokerError):
    """A jar on disk, or one just fetched, has another SHA-256 than the list says."""


class JavaUnsuitableError(BrokerError):
    """The Java runtime that was named does not run, or is too old for Kafka."""

    exit_code = 2


class BrokerConfigError(BrokerError):
    """A setting of the broker has a value that it cannot have."""

    exit_code = 2


class PortTakenError(BrokerError):
    """The port that was asked for is in use by another process."""

    exit_code = 2


class FolderInUseError(BrokerError):
    """Another broker runs on the same data folder."""


class BrokerStartError(BrokerError):
    """Kafka ended while it started, or did not answer within the time given."""
