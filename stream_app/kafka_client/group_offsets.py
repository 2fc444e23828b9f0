"""Committed offsets that Kafka did not give: an error, where aiokafka takes them for offsets that were never committed.

Since its second version the answer to ``OffsetFetch`` tells errors of the whole group (its coordinator is elsewhere by
now, or still reads what was committed) once, beside no partition at all. aiokafka looks at the partitions only. In that
instant after the loss of a broker a consumer would begin at the start of its input, and a lag would be that of a group
which never read anything.
"""

from __future__ import annotations

from typing import Any, Final

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import for_code
from aiokafka.protocol.commit import OffsetFetchResponse_v2, OffsetFetchResponse_v3

WITH_ERROR_OF_GROUP: Final = (OffsetFetchResponse_v2, OffsetFetchResponse_v3)

stock_send = AIOKafkaClient.send
"""As aiokafka has it."""


def tell_errors_of_groups() -> None:
    """Have every client of this process raise what Kafka says of a group; again does no harm."""
    AIOKafkaClient.send = _send_and_look


async def _send_and_look(
    client: AIOKafkaClient, node_id: int, request: Any, *, group: ConnectionGroup = ConnectionGroup.DEFAULT
) -> Any:
    answer = await stock_send(client, node_id, request, group=group)
    if isinstance(answer, WITH_ERROR_OF_GROUP) and answer.error_code:
        raise for_code(answer.error_code)()
    return answer
