"""The roles in the order of the flow, and what each reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stream_app.topics import CHOICES, EVENTS, ITEM_ACTIVITY, SLICE_VECTORS, SLICES

ROLE_INPUTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "sequence": EVENTS,
        "trend": ITEM_ACTIVITY,
        "encode": SLICES,
        "choose": SLICE_VECTORS,
        "score": CHOICES,
        "recommend": SLICE_VECTORS,
    }
)
"""Each role and its input topic (without prefix), a role after those whose output it needs."""

SINGLE_ROLES: Final = frozenset({"score"})
"""The roles whose input has one partition, whatever the settings say of the others."""

ROLES: Final = tuple(ROLE_INPUTS)
"""The names of the roles, in the order of the flow."""

SERVE: Final = "serve"
"""The server of the page and the API. It reads many topics, belongs to no consumer group and keeps nothing, so it is no
role that can be rebuilt, audited or waited for."""
