"""Writes `roles.yaml` and `scaling.yaml`: what differs between the roles stands here, what they share in the templates.

Run it from the project's folder after a change: ``python -m deploy.kubernetes.render``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from string import Template
from types import MappingProxyType
from typing import Final

from stream_app.lag import group_name
from stream_app.monitoring.endpoint import metrics_port
from stream_app.roles import ROLE_INPUTS, SINGLE_ROLES
from stream_app.settings import Settings

FOLDER: Final = Path(__file__).parent
FIRST_PORT: Final = 9400
PARTITIONS: Final = 8
"""As in `config.yaml`; `sliceflow plan` tells how many a load needs."""

LAG_PER_WORKER: Final = 5000
"""Records behind which another worker is started: a few seconds of work (`docs/operations.md`)."""

NOTE: Final = "# Made by `python -m deploy.kubernetes.render` from {name}.template; change that.\n"

RESOURCES: Final[Mapping[str, tuple[str, str, str]]] = MappingProxyType(
    {
        "sequence": ("500m", "1Gi", "10Gi"),
        "trend": ("250m", "1Gi", "5Gi"),
        "encode": ("1", "2Gi", "10Gi"),
        "choose": ("500m", "2Gi", "10Gi"),
        "score": ("500m", "1Gi", "2Gi"),
        "recommend": ("1", "2Gi", "10Gi"),
    }
)
"""Processor, memory and disk of one worker of each role: for some hundred events a second; see `sliceflow plan`."""


def rendered() -> dict[str, str]:
    """The text of each file by its name."""
    roles = [values_of(role) for role in ROLE_INPUTS]
    scaled = [values for values in roles if values["role"] not in SINGLE_ROLES]
    return {
        "roles.yaml": _filled("role.yaml", roles),
        "scaling.yaml": _filled("scaling.yaml", scaled),
    }


def values_of(role: str) -> dict[str, str]:
    """What a role puts into the templates."""
    cpu, memory, disk = RESOURCES[role]
    return {
        "role": role,
        "replicas": "1" if role in SINGLE_ROLES else "2",
        "port": str(metrics_port(FIRST_PORT, role, 0)),
        "cpu": cpu,
        "memory": memory,
        "disk": disk,
        "partitions": str(PARTITIONS),
        "group": group_name(Settings(), role),
        "topic": ROLE_INPUTS[role],
        "lag": str(LAG_PER_WORKER),
    }


def _filled(name: str, rows: list[dict[str, str]]) -> str:
    template = Template((FOLDER / f"{name}.template").read_text("utf-8"))
    return NOTE.format(name=name) + "".join(template.substitute(row) for row in rows)


def main() -> None:
    """Write the files."""
    for name, text in rendered().items():
        (FOLDER / name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
