"""One contender in a process of its own, its curve as JSON: ``python -m tests.bench.index.worker MODULE KIND FOLDER
THREADS``."""

from __future__ import annotations

import importlib
import json
import sys
from functools import partial
from pathlib import Path

from tests.bench.index.points import curve


def main() -> None:
    """Measure, and print."""
    module, kind, folder, num_threads = sys.argv[1:]
    build = partial(importlib.import_module(module).build, kind)
    print(json.dumps(curve(build, Path(folder), int(num_threads)).plain()))


if __name__ == "__main__":
    main()
