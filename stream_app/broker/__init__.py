"""The embedded broker: a real Apache Kafka (KRaft) that needs neither Docker nor an installed Java.

Its jars come by Maven coordinates and are checked against hashes that ship with this package; its Java comes
as a Python package. What it needs of the machine is a few hundred MB of disk and memory, and the loopback
interface.
"""

from stream_app.broker.embedded import EmbeddedBroker
from stream_app.broker.errors import BrokerError

__all__ = ["BrokerError", "EmbeddedBroker"]
