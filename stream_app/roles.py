"""The roles in the order of the flow, and what each reads."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from stream_app.topics import EVENTS, ITEM_ACTIVITY, SLICE_VECTORS, SLICES

ROLE_INPUTS: Final[Mapping[str, str]] = MappingProxyType(
    {"sequence": EVENTS, "trend": ITEM_ACTIVITY, "encode": SLICES, "recommend": SLICE_VECTORS}
)
"""Each role and its input topic (without prefix), a role after those whose output it needs."""

ROLES: Final = tuple(ROLE_INPUTS)
"""The names of the roles, in the order of the flow."""
