"""Fine-tuning a text model on what users did: texts of items that were touched together become neighbours.

The adapters (LoRA) are trained before the item tower and then added into the weights, so that afterwards every text
is encoded once, as with any other frozen model. Training them with the tower would encode every text in every step.

Shapes: P pairs of a batch, T dimensions, E events.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.contract import Int64Array
from encoders.histories import TrainingHistories
from encoders.text import TransformerText
from encoders.training_config import LoraSettings


@dataclass(frozen=True)
class TuningSettings:
    """How the adapters are trained.

    Args:
        lora: their shape.
        learning_rate: AdamW's; adapters bear ten times that of full fine-tuning.
        batch_pairs: P; every other pair of a batch is a negative.
        max_steps: batches in all.
        temperature: of the softmax over cosines.
        seed: of adapters, order and dropout.
    """

    lora: LoraSettings = field(default_factory=LoraSettings)
    learning_rate: float = 3e-4
    batch_pairs: int = 32
    max_steps: int = 300
    temperature: float = 0.05
    seed: int = 0


def touched_pairs(histories: TrainingHistories, texts: Sequence[str]) -> list[tuple[str, str]]:
    """Texts of items that a user touched one right after the other in one slice; pairs of equal texts are left out.

    Args:
        histories: before the split, and nothing else.
        texts: of all rows of the item table, empty where there is none.
    """
    rows_E: Int64Array = histories.item_rows_E
    slices_E = np.repeat(np.arange(histories.num_slices), histories.slice_lengths())
    goes_on = slices_E[1:] == slices_E[:-1]
    found = zip(rows_E[:-1][goes_on].tolist(), rows_E[1:][goes_on].tolist(), strict=True)
    pairs = ((texts[left], texts[right]) for left, right in found)
    return [(left, right) for left, right in pairs if left and right and left != right]


def tune_text(encoder: TransformerText, pairs: Sequence[tuple[str, str]], settings: TuningSettings) -> list[float]:
    """Train adapters on pairs of texts that belong together and add them into the model.

    Args:
        encoder: changed in place; its identity is another one afterwards.
        pairs: texts of items that the same user touched in one slice, both before the split.
        settings: of the training.

    Returns:
        The loss of each step, in nats; ln P is what guessing has. Contrastive loss in both directions
        (InfoNCE, arXiv 1807.03748); texts equal to the right one are no negatives.

    Raises:
        ValueError: with fewer than two pairs.
    """
    if len(pairs) < 2:
        raise ValueError(
            f"{len(pairs)} pairs of texts, expected at least 2; bring more events with two items in a slice"
        )
    generator = np.random.default_rng(settings.seed)
    losses: list[float] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        optimizer = torch.optim.AdamW(encoder.add_lora(settings.lora), lr=settings.learning_rate, weight_decay=0.0)
        for _ in range(settings.max_steps):
            chosen = generator.choice(len(pairs), min(settings.batch_pairs, len(pairs)), replace=False)
            loss = pair_loss(encoder, [pairs[place] for place in chosen.tolist()], settings.temperature)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    encoder.merge_lora()
    return losses


def pair_loss(encoder: TransformerText, pairs: Sequence[tuple[str, str]], temperature: float) -> Tensor:
    """Contrastive loss of a batch of pairs, the mean of both directions; a scalar with gradients."""
    lefts, rights = zip(*pairs, strict=True)
    both_T = F.normalize(encoder.vectors([*lefts, *rights]), dim=1)
    lefts_PT, rights_PT = both_T[: len(pairs)], both_T[len(pairs) :]
    logits_PP = lefts_PT @ rights_PT.T / temperature
    targets_P = torch.arange(len(pairs))
    forward = F.cross_entropy(_without_twins(logits_PP, rights), targets_P)
    backward = F.cross_entropy(_without_twins(logits_PP.T, lefts), targets_P)
    return (forward + backward) / 2


def _without_twins(logits_PP: Tensor, texts: Sequence[str]) -> Tensor:
    """Logits without those of other places that hold the very text that is looked for."""
    names = {text: number for number, text in enumerate(texts)}
    numbers_P = torch.tensor([names[text] for text in texts])
    twins_PP = (numbers_P[:, None] == numbers_P) & ~torch.eye(len(texts), dtype=torch.bool)
    return logits_PP.masked_fill(twins_PP, float("-inf"))
