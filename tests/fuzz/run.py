"""Feeds the targets with what a coverage-guided fuzzer comes up with, one after the other.

    python -m tests.fuzz.run --minutes 10

An input that breaks a promise, or takes too long, ends the run and is kept: put it into ``tests/fuzz/crashers/TARGET``
and mend what it broke.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

FOUND: Final = Path(__file__).parents[2] / "build" / "fuzz"
"""Corpus and crashers of all runs."""

INPUT_S: Final = 10
"""An input that takes longer is a hang: the slowest honest one takes a few milliseconds."""

MEMORY_MB: Final = 2048
MAX_INPUT_BYTES: Final = 8192
"""Far above what one event has, so that nesting and repetition have room."""

TARGETS: Final = ("event", "log", "record")


def seconds_of_each(minutes: float, targets: Sequence[str]) -> int:
    """The time of each target, whole seconds, at least one."""
    return max(1, int(minutes * 60 / len(targets)))


def _arguments(target: str, seconds: int) -> list[str]:
    """What libFuzzer is told."""
    corpus = FOUND / target / "corpus"
    return [
        str(corpus),
        str(Path(__file__).parent / "crashers" / target),
        f"-artifact_prefix={FOUND / target}/",
        f"-max_total_time={seconds}",
        f"-timeout={INPUT_S}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-max_len={MAX_INPUT_BYTES}",
        "-print_final_stats=1",
        "-verbosity=0",
    ]


def _write_seeds(target: str) -> None:
    from tests.fuzz.seeds import SEEDS

    corpus = FOUND / target / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (Path(__file__).parent / "crashers" / target).mkdir(parents=True, exist_ok=True)
    for seed in SEEDS[target]:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)


def _fuzz(target: str, seconds: int) -> None:
    """Fuzz one target in this process, which ends with it."""
    try:
        # It carries no types, and is installed by `make fuzz` alone.
        atheris: Any = importlib.import_module("atheris")
    except ImportError:
        sys.exit("The fuzzer atheris is not installed. To mend it: run `make fuzz`.")
    with atheris.instrument_imports(include=["stream_app.stages", "stream_app.records", "stream_app.tables"]):
        targets = importlib.import_module("tests.fuzz.targets")
    _write_seeds(target)
    atheris.Setup([sys.argv[0], *_arguments(target, seconds)], targets.TARGETS[target])
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz each target in a process of its own; the first exit code that is not 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of all targets together")
    parser.add_argument("--target", choices=TARGETS, help="only this one, in this process")
    options = parser.parse_args(arguments)
    if options.target:
        _fuzz(options.target, seconds_of_each(options.minutes, [options.target]))
        return 0
    each_s = seconds_of_each(options.minutes, TARGETS)
    for target in TARGETS:
        print(f"fuzzing {target} for {each_s} s", flush=True)
        command = [sys.executable, "-m", "tests.fuzz.run", "--target", target, "--minutes", str(each_s / 60)]
        if code := subprocess.run(command, check=False).returncode:
            print(f"{target}: an input broke a promise; it lies in {FOUND / target}", flush=True)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
