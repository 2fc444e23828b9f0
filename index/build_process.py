"""Builds one main segment: an order on standard input, the segment on standard output. See `index.built_apart`."""

from __future__ import annotations

import os
import sys
from typing import Final

from index.building import divided_and_built
from index.built_apart import read_order, write_main, write_refusal
from index.errors import SwapRefusedError

NICENESS: Final = 5
"""Searches come first; but on a busy machine the build must not be left behind by what changes meanwhile."""


def main() -> None:
    """Build what is ordered."""
    os.nice(NICENESS)
    # What a library prints must not get into the answer.
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = read_order(sys.stdin.buffer)
    with answer:
        try:
            made = divided_and_built("ivf", order)
        except SwapRefusedError as error:
            write_refusal(answer, error)
        else:
            write_main(answer, made)


if __name__ == "__main__":
    main()
