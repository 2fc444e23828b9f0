"""What aiokafka does not bear, mended from outside, once for all clients of a process."""

from stream_app.kafka_client.group_offsets import tell_errors_of_groups
from stream_app.kafka_client.lost_connection import expect_lost_connections
from stream_app.kafka_client.no_broker_yet import wait_for_brokers
from stream_app.kafka_client.odd_headers import read_odd_headers


def mend_clients() -> None:
    """Mend aiokafka; to be called before the first client is made, again does no harm."""
    expect_lost_connections()
    read_odd_headers()
    tell_errors_of_groups()
    wait_for_brokers()
