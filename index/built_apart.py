"""A main segment built in a process of its own, so that searches do not wait for it.

Threads of one process take turns at running Python. A build is thousands of short steps, and with each of them a search
may have to wait for its turn, up to 5 ms each time: at a million items a single query's p99 was seven times as long
while another thread built. A process of its own, with less right to the processor, is waited for by nobody.

`index.build_process` is the other side. What goes through the pipes: a line of JSON and the bytes of an array, for each
array; see `write_array`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import numpy.typing as npt

from index.building import BuildOrder
from index.contract import Partition
from index.errors import SwapRefusedError
from index.inverted_file import Filling, InvertedFile
from index.main_segment import MainSegment, RecallGoal

BUILDER: Final = "index.build_process"
_FOLDER: Final = Path(__file__).resolve().parent.parent


class BuildProcessError(Exception):
    """The process ended without an answer; whoever asked may build by itself."""


def built_apart(order: BuildOrder) -> MainSegment:
    """Have an inverted file built by another process.

    Raises:
        SwapRefusedError: It finds less than the goal's least with any effort.
        BuildProcessError: There was no answer.
    """
    try:
        process = _started()
    except OSError as error:
        raise BuildProcessError(f"the process that builds could not be started: {error}") from error
    with process:
        assert process.stdin is not None and process.stdout is not None
        try:
            with process.stdin as stream:
                write_order(stream, order)
            return read_main(process.stdout, order)
        except (OSError, EOFError) as error:
            process.kill()
            raise BuildProcessError(f"the process that builds ended with {process.wait()}: {error}") from error
        except BaseException:
            process.kill()
            raise


def _started() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(_FOLDER), os.environ.get("PYTHONPATH")]))
    # In a session of its own: a terminal's Ctrl-C is for whoever asked, and ends the pipes.
    return subprocess.Popen(
        [sys.executable, "-m", BUILDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,
    )


def write_order(stream: IO[bytes], order: BuildOrder) -> None:
    """Write what is to be built."""
    _write_line(
        stream,
        {
            "wanted": order.goal.wanted,
            "least": order.goal.least,
            "num_threads": order.num_threads,
            "is_divided": order.earlier is not None,
        },
    )
    for array in (order.numbers_R, order.vectors_RD, order.queries_SD):
        write_array(stream, array)
    if order.earlier is not None:
        _write_partition(stream, order.earlier)


def read_order(stream: IO[bytes]) -> BuildOrder:
    """Read what `write_order` wrote.

    Raises:
        EOFError: It ends too early.
    """
    told = _read_line(stream)
    numbers_R, vectors_RD, queries_SD = (read_array(stream) for _ in range(3))
    earlier = _read_partition(stream) if told["is_divided"] else None
    goal = RecallGoal(told["wanted"], told["least"])
    return BuildOrder(numbers_R, vectors_RD, queries_SD, goal, told["num_threads"], earlier)


def write_main(stream: IO[bytes], main: MainSegment) -> None:
    """Write a main segment, without what the order brought."""
    structure = main.structure
    assert isinstance(structure, InvertedFile)
    _write_line(stream, {"effort": main.effort, "recall": main.recall})
    _write_partition(stream, structure.partition)
    write_array(stream, structure.filling.deviations_P)
    write_array(stream, structure.filling.list_bytes())
    stream.flush()


def write_refusal(stream: IO[bytes], error: SwapRefusedError) -> None:
    """Write that it finds too little."""
    _write_line(stream, {"refused": error.recall})
    stream.flush()


def read_main(stream: IO[bytes], order: BuildOrder) -> MainSegment:
    """Read what `write_main` or `write_refusal` wrote.

    Raises:
        SwapRefusedError: The latter.
        EOFError: It ends too early.
    """
    told = _read_line(stream)
    if "refused" in told:
        raise SwapRefusedError(told["refused"], order.goal.least, len(order.numbers_R))
    partition, deviations_P = _read_partition(stream), read_array(stream)
    filling = Filling.from_bytes(deviations_P, read_array(stream))
    structure = InvertedFile(order.numbers_R, order.vectors_RD, partition, filling)
    return MainSegment(order.numbers_R, order.vectors_RD, structure, told["effort"], told["recall"])


def write_array(stream: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Write an array: a line of JSON with its type and shape, then its bytes."""
    _write_line(stream, {"dtype": array.dtype.str, "shape": array.shape})
    if array.size:
        stream.write(np.ascontiguousarray(array).data.cast("B"))


def read_array(stream: IO[bytes]) -> npt.NDArray[Any]:
    """Read an array.

    Raises:
        EOFError: It ends too early.
    """
    told = _read_line(stream)
    array: npt.NDArray[Any] = np.empty(told["shape"], dtype=told["dtype"])
    if array.size and stream.readinto(array.data.cast("B")) != array.nbytes:  # type: ignore[attr-defined]
        raise EOFError("an array is cut off")
    return array


def _write_partition(stream: IO[bytes], partition: Partition) -> None:
    write_array(stream, partition.centres_PD)
    write_array(stream, partition.parts_N)


def _read_partition(stream: IO[bytes]) -> Partition:
    centres_PD = read_array(stream)
    return Partition(centres_PD, read_array(stream))


def _write_line(stream: IO[bytes], told: Mapping[str, object]) -> None:
    stream.write(json.dumps(told).encode() + b"\n")


def _read_line(stream: IO[bytes]) -> dict[str, Any]:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise EOFError("nothing came")
    told: dict[str, Any] = json.loads(line)
    return told
