"""What a GPU brings: slices a second of the model, and exact searches a second over a million items.

Needs torch and faiss (and safetensors, which models are read with), no broker, no log and no trained model: weights,
slices and items are random, the shapes those of the default model. The figures of the card are beside those of two
cores of the same machine. Everything is checked against a slow oracle: the model in float32 on the CPU, inner products
in float64.

    make bench-gpu                       on a machine with a card; five minutes
    python -m tests.bench.gpu --cpu      the CPU's side alone, small, to see that it runs
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import faiss
import numpy as np
import torch

from encoders.compression import compressed
from encoders.contract import Float32Array
from encoders.spec import ModelDims
from encoders.transformer import SliceModel
from tests.bench.card import card_facts, card_variants, searched_by_torch, with_copies
from tests.bench.common import BenchResult, Figure, finish, table
from tests.bench.index.ours import filled, rows_of
from tests.bench.plain_model import PLAIN_BATCH, Inputs, Variant, Vectors, largest_difference, plain_call
from tests.bench.timing import Task

SPEEDUP_TARGET: Final = 40.0
"""Slices a second on a card of the H200's class, over those of two cores."""
SEARCH_TARGET: Final = 100_000.0
"""Queries a second over a million items on the same card."""

DIM: Final = 64
K: Final = 50
CPU_THREADS: Final = 2
NUM_CHECKED: Final = 64
"""Queries that are compared with the oracle."""
GAP: Final = 1e-4
"""Scores that are nearer to each other than that count as equal."""
LEAST_S: Final = 1.0
"""Each figure is taken over so long, or over one run where that takes longer."""
HALF_LIVES_MS: Final = (3.6e6, 8.64e7, 6.05e8, 3e12)


@dataclass(frozen=True)
class Sizes:
    """How much of everything.

    Args:
        cpu_slices: Slices that the CPU takes.
        card_batch: Slices that the card takes at once.
        items: To search.
        queries: Of a batch.
    """

    cpu_slices: int
    card_batch: int
    items: int
    queries: int


WITH_CARD: Final = Sizes(4096, 16_384, 1_000_000, 8192)
CPU_ALONE: Final = Sizes(1024, 1024, 20_000, 512)

DIMS: Final = ModelDims(num_item_rows=12_602, num_type_rows=6)
"""The default model's shapes; of items as many as MovieTweetings has."""


def random_model(seed: int = 0) -> SliceModel:
    """A model that was never trained: as costly as any."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SliceModel(DIMS, HALF_LIVES_MS).eval().requires_grad_(False)


def random_inputs(num_slices: int, seed: int = 0) -> Inputs:
    """Slices that are full, with full contexts and memories."""
    generator = torch.Generator().manual_seed(seed)

    def rows(num: int, places: int) -> torch.Tensor:
        return torch.randint(1, num, (num_slices, places), generator=generator)

    tables = (DIMS.num_item_rows, DIMS.num_type_rows, DIMS.num_gap_rows)
    return (
        *(rows(num, DIMS.slice_events) for num in tables),
        torch.full((num_slices,), DIMS.slice_events),
        *(rows(num, DIMS.context_events) for num in tables),
        torch.randn((num_slices, DIMS.num_memory_rows, DIMS.dim), generator=generator),
        torch.arange(num_slices) % 3 > 0,
    )


def rate(task: Task, num: int, least_s: float = LEAST_S) -> float:
    """How many a second, where one run of the task does `num` of them and waits until they are done; a first run does
    not count."""
    task()
    started_s, num_runs = time.perf_counter(), 0
    while (passed_s := time.perf_counter() - started_s) < least_s or not num_runs:
        task()
        num_runs += 1
    return num * num_runs / passed_s


def cpu_rate(model: SliceModel, inputs: Inputs) -> float:
    """Slices a second of the plain call on two cores."""
    torch.set_num_threads(CPU_THREADS)
    return rate(partial(Variant("plain", plain_call(model)).all_of, inputs), len(inputs[0]))


def random_vectors(num: int, seed: int) -> Float32Array:
    """(num, D) float32, normal."""
    return np.random.default_rng(seed).standard_normal((num, DIM), dtype=np.float32)


def is_exact(rows_QK: np.typing.NDArray[np.int64], queries_QD: Float32Array, items_ND: Float32Array) -> bool:
    """Whether the rows found for the first queries are the best, by inner products in float64, but for near ties."""
    wide_ND = items_ND.astype(np.float64)
    for found_K, query_D in zip(rows_QK[:NUM_CHECKED], queries_QD, strict=False):
        scores_N = wide_ND @ query_D
        least = np.partition(scores_N, -len(found_K))[-len(found_K)]
        if len(set(found_K.tolist())) < len(found_K) or scores_N[found_K].min() < least - GAP:
            return False
    return True


@dataclass(frozen=True)
class Found:
    """One figure with how far it is from its oracle, in words."""

    name: str
    per_s: float
    check: str

    def row(self) -> list[str]:
        """For the table."""
        return [self.name, f"{self.per_s:,.0f}", self.check]


def searched_by_index(kind: str, items_ND: Float32Array, queries_QD: Float32Array) -> Found:
    """Through the index that the roles use, `flat` or `gpu`."""
    index = filled(kind, items_ND, queries_QD[:NUM_CHECKED], CPU_THREADS, goal=1.0)
    found = rows_of(index.search(queries_QD[:NUM_CHECKED], K))
    per_s = rate(lambda: index.search(queries_QD, K), len(queries_QD))
    return Found(f"index, {kind}", per_s, _told(is_exact(found, queries_QD, items_ND)))


def searched(
    name: str, search: Callable[[Float32Array], Any], items_ND: Float32Array, queries_QD: Float32Array
) -> Found:
    """By a function that gives rows (Q, K)."""
    found = np.asarray(search(queries_QD[:NUM_CHECKED]))
    return Found(name, rate(lambda: search(queries_QD), len(queries_QD)), _told(is_exact(found, queries_QD, items_ND)))


def _told(exact: bool) -> str:
    return "exact" if exact else "NOT exact"


def encoded_on_card(model: SliceModel, sizes: Sizes) -> tuple[list[Found], list[str]]:
    """All ways to encode on the card; and those that do not work, in words."""
    inputs = random_inputs(sizes.card_batch)
    wanted = Variant("plain", plain_call(model)).all_of(tuple(part[:PLAIN_BATCH] for part in inputs))
    found: list[Found] = []
    missing: list[str] = []
    rounded = compressed(model, "bf16")
    for kind, on_card in (("fp32", model.to("cuda")), ("bf16", rounded.to("cuda"))):
        resident = tuple(part.to("cuda") for part in inputs)
        for variant in card_variants(kind, on_card, resident):
            if isinstance(variant, str):
                missing.append(variant)
                continue
            task = partial(_until_done, partial(variant.all_of, resident))
            warm_up = "" if variant.warm_up_s is None else f", warm-up {variant.warm_up_s:.0f} s"
            check = f"difference {_difference(variant.all_of(resident), wanted):.1e}{warm_up}"
            found.append(Found(variant.name, rate(task, len(inputs[0])), check))
        for name, copying in with_copies(plain_call(on_card), inputs):
            check = f"difference {_difference(copying()[0], wanted):.1e}"
            found.append(Found(f"{kind}, {name}", rate(copying, len(inputs[0])), check))
    return found, missing


def _difference(made: Vectors, wanted: Vectors) -> float:
    """The largest, of as many slices as the oracle took."""
    return largest_difference(Vectors(*(one[: len(wanted.codes_SD)] for one in made)), wanted)


def _until_done(task: Task) -> None:
    task()
    torch.cuda.synchronize()


def searches_on_card(sizes: Sizes) -> list[Found]:
    """Exact search on the card: through the index where FAISS finds the card, by FAISS itself, and by torch."""
    items_ND, queries_QD = random_vectors(sizes.items, 1), random_vectors(sizes.queries, 2)
    found = []
    if faiss.get_num_gpus() > 0:
        found.append(searched_by_index("gpu", items_ND, queries_QD))
        resources = faiss.StandardGpuResources()
        flat: Any = faiss.GpuIndexFlatIP(resources, DIM)
        flat.add(items_ND)
        found.append(searched("FAISS itself", lambda some_QD: flat.search(some_QD, K)[1], items_ND, queries_QD))
    by_torch = searched_by_torch(items_ND, K)
    found.append(searched("torch: matmul and topk, no index", by_torch, items_ND, queries_QD))
    return found


def result_of(
    cpu_per_s: float, encoded: Sequence[Found], searches: Sequence[Found], details: dict[str, Any]
) -> BenchResult:
    """The figures of a machine with a card: the fastest way to encode of each kind, and the first search."""
    plain = {kind: max(one.per_s for one in encoded if one.name.startswith(kind)) for kind in ("fp32", "bf16")}
    figures = {
        "slices_per_s_over_2_cores": Figure(max(plain.values()) / cpu_per_s, SPEEDUP_TARGET, "higher"),
        "slices_per_s_2_cores": Figure(cpu_per_s),
        **{f"slices_per_s_{kind}": Figure(per_s) for kind, per_s in plain.items()},
        "queries_per_s": Figure(searches[0].per_s, SEARCH_TARGET, "higher"),
        "searches_exact": Figure(all(one.check == "exact" for one in searches), True, "same"),
    }
    rows = [one.row() for one in (*encoded, *searches)]
    return BenchResult("gpu", figures, {"ways": rows, "search": searches[0].name, **details})


def cpu_result(sizes: Sizes) -> BenchResult:
    """The figures of the CPU's side alone."""
    items_ND, queries_QD = random_vectors(sizes.items, 1), random_vectors(sizes.queries, 2)
    one = searched_by_index("flat", items_ND, queries_QD)
    figures = {
        "slices_per_s_2_cores": Figure(cpu_rate(random_model(), random_inputs(sizes.cpu_slices))),
        "queries_per_s": Figure(one.per_s),
        "searches_exact": Figure(one.check == "exact", True, "same"),
        "has_card": Figure(False),
    }
    return BenchResult("gpu-cpu-side", figures, {"items": sizes.items})


def run_on_card() -> int:
    """Measure everything; the exit code."""
    facts = card_facts(driver())
    print("\n".join(f"{name}: {value}" for name, value in facts.items()))
    cpu_per_s = cpu_rate(random_model(), random_inputs(WITH_CARD.cpu_slices))
    encoded, missing = encoded_on_card(random_model(), WITH_CARD)
    searches = searches_on_card(WITH_CARD)
    print(table(("way", "a second", "check"), [one.row() for one in (*encoded, *searches)]))
    print("".join(f"{line}\n" for line in missing))
    return finish(result_of(cpu_per_s, encoded, searches, {"card": facts, "missing": missing, **vars(WITH_CARD)}))


def driver() -> str:
    """The version of the card's driver as its own tool tells it."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return "unknown: there is no nvidia-smi"
    told = subprocess.run(
        [tool, "--query-gpu=driver_version", "--format=csv,noheader"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return told.stdout.strip() or f"unknown: nvidia-smi ended with {told.returncode}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code: 1 where there is no card and the CPU's side was not asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", action="store_true", help="the CPU's side alone, on a small size")
    options: Any = parser.parse_args(arguments)
    if options.cpu:
        return finish(cpu_result(CPU_ALONE))
    if not torch.cuda.is_available():
        print(
            f"bench-gpu: torch {torch.__version__} finds no CUDA device, so nothing was measured; run it on a machine "
            f"with a card, or the CPU's side alone with --cpu",
            file=sys.stderr,
        )
        return 1
    return run_on_card()


if __name__ == "__main__":
    sys.exit(main())
