"""The parts of the GPU's measurement that only run where there is a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Final

import faiss
import numpy as np
import torch
from torch import Tensor

from encoders.contract import Float32Array
from encoders.transformer import SliceModel
from tests.bench.plain_model import Call, Inputs, Variant, Vectors, compiled_variant, plain_call

COPIED_BATCH: Final = 4096
"""Slices of a batch where copies and work are to overlap."""
WARM_UPS: Final = 3
"""Calls before a graph is captured, as torch asks for."""
QUERIES_AT_ONCE: Final = 1024
"""Of a search by torch: scores of a million items are 4 GB then."""


def card_facts(driver: str) -> dict[str, Any]:
    """Card, driver and versions."""
    card = torch.cuda.get_device_properties(0)
    return {
        "card": card.name,
        "memory_gib": round(card.total_memory / 2**30, 1),
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "faiss": faiss.__version__,
        "faiss_gpus": int(faiss.get_num_gpus()),
    }


def card_variants(kind: str, model: SliceModel, inputs: Inputs) -> Iterator[Variant | str]:
    """The ways to call a model on the card, one by one; the reason where one does not work.

    Args:
        kind: How the model computes, for the names.
        model: On the card.
        inputs: On the card; one batch.
    """
    batch = len(inputs[0])
    yield Variant(f"{kind}, plain", plain_call(model), batch)
    yield Variant(f"{kind}, CUDA graph", graphed(plain_call(model), inputs), batch)
    compiled = compiled_variant(model, inputs, batch)
    if isinstance(compiled, str):
        yield f"{kind}: {compiled}"
    else:
        yield Variant(f"{kind}, torch.compile", compiled.call, batch, compiled.warm_up_s)


def graphed(call: Call, inputs: Inputs) -> Call:
    """The call as a CUDA graph: all of its kernels started at once, for inputs of these shapes.

    Source: "CUDA Graphs" in torch's notes on CUDA semantics: warm up on a side stream, capture, copy in, replay.
    """
    with torch.inference_mode():
        held = tuple(part.clone() for part in inputs)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                call(*held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = call(*held)

    def replay(*parts: Tensor) -> Vectors:
        for place, part in zip(held, parts, strict=True):
            place.copy_(part)
        graph.replay()
        # The graph writes to the same memory each time.
        return Vectors(*(one.clone() for one in made))

    return replay


def with_copies(call: Call, inputs: Inputs) -> Iterator[tuple[str, Callable[[], list[Vectors]]]]:
    """The call with slices that come from the host's memory and vectors that go there: copied one after the other, and
    from pinned memory on two streams, so that copies and work overlap.

    Args:
        call: On the card.
        inputs: In the host's memory.
    """
    starts = range(0, len(inputs[0]), COPIED_BATCH)
    batches = [tuple(part[start : start + COPIED_BATCH] for part in inputs) for start in starts]
    yield "with copies", partial(_one_after_the_other, call, batches)
    pinned = [tuple(part.contiguous().pin_memory() for part in batch) for batch in batches]
    streams = [torch.cuda.Stream() for _ in range(2)]
    yield "with copies, pinned, two streams", partial(_overlapping, call, pinned, streams)


def _one_after_the_other(call: Call, batches: list[Inputs]) -> list[Vectors]:
    with torch.inference_mode():
        return [Vectors(*(one.cpu() for one in call(*(part.to("cuda") for part in batch)))) for batch in batches]


def _overlapping(call: Call, batches: list[Inputs], streams: list[torch.cuda.Stream]) -> list[Vectors]:
    results: list[Vectors] = []
    with torch.inference_mode():
        for number, batch in enumerate(batches):
            with torch.cuda.stream(streams[number % len(streams)]):
                made = call(*(part.to("cuda", non_blocking=True) for part in batch))
                results.append(Vectors(*map(_sent_back, made)))
        torch.cuda.synchronize()
    return results


def _sent_back(values: Tensor) -> Tensor:
    """The values on their way to pinned memory of the host."""
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def searched_by_torch(items_ND: Float32Array, k: int) -> Callable[[Float32Array], np.typing.NDArray[np.int64]]:
    """A search of all items by a matrix product and a selection; gives rows (Q, K)."""
    columns_DN = torch.from_numpy(items_ND).to("cuda").T

    def search(queries_QD: Float32Array) -> np.typing.NDArray[np.int64]:
        with torch.inference_mode():
            queries = torch.from_numpy(queries_QD).to("cuda")
            found = [(part @ columns_DN).topk(k, dim=1).indices for part in queries.split(QUERIES_AT_ONCE)]
            rows_QK: np.typing.NDArray[np.int64] = torch.cat(found).cpu().numpy()
        return rows_QK

    return search
