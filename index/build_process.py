"""Builds one main segment: an order on standard input, the segment on standard output. See `index.built_apart`."""

from __future__ import annotations

import os
import sys
from typing import IO, Final

from index.building import divided_and_built
from index.built_apart import read_order, write_main, write_refusal
from index.errors import SwapRefusedError

NICENESS: Final = 5
"""Searches come first; but on a busy machine the build must not be left behind by what changes meanwhile."""


def main() -> None:
    """Build what is ordered; the exit code is 1 where whoever ordered it is gone."""
    os.nice(NICENESS)
    # What a library prints must not get into the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        _build(sys.stdin.buffer, answer)
    except (EOFError, BrokenPipeError):
        os._exit(1)  # at once: what is left of an answer has nobody to read it


def _build(source: IO[bytes], answer: IO[bytes]) -> None:
    order = read_order(source)
    try:
        made = divided_and_built("ivf", order)
    except SwapRefusedError as error:
        write_refusal(answer, error)
    else:
        write_main(answer, made)


if __name__ == "__main__":
    main()
