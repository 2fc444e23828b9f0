"""How much memory this process has."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

MIB = 1024 * 1024


def memory_mib() -> float:
    """Resident memory of this process; the most it ever had where the system does not tell (macOS)."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return round(most / MIB if sys.platform == "darwin" else most / 1024, 1)
    return round(pages * os.sysconf("SC_PAGE_SIZE") / MIB, 1)
