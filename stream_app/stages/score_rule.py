"""Scorer-epochs, and whose choices the scorer learns from: all that the roles must agree on.

Pure functions of event times and user ids, so every role decides alike without asking another.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

HASH_RANGE = 2.0**64


@dataclass(frozen=True)
class ScoreRule:
    """When the scorer changes, and what it learns from.

    Args:
        epoch_ms: Length of an epoch of trends.
        scorer_epoch_ms: Length of a scorer-epoch, a multiple of `epoch_ms`.
        users_share: Share of the users whose choices are learned from.
        choices_per_epoch: Choices learned from in each scorer-epoch, at most.
    """

    epoch_ms: int
    scorer_epoch_ms: int
    users_share: float
    choices_per_epoch: int

    def is_sampled(self, user_key: bytes) -> bool:
        """Whether the scorer learns from the choices of the user with this key; the same everywhere and always."""
        return hash_of(user_key) < self.users_share * HASH_RANGE

    def epoch_at(self, ts_ms: int) -> int:
        """The scorer-epoch that a time is in."""
        return ts_ms // self.scorer_epoch_ms

    def epoch_of(self, join_epoch: int | None, ts_ms: int) -> int:
        """The scorer-epoch of an event: by its partition's clock where that joins trends exactly, else by its time."""
        return self.epoch_at(ts_ms if join_epoch is None else (join_epoch + 1) * self.epoch_ms)

    def joined(self, join_epoch: int | None) -> int | None:
        """The scorer-epoch whose scorer ranks a list that joins the trends of `join_epoch`; None for the newest."""
        return None if join_epoch is None else self.epoch_of(join_epoch, 0) - 1


def hash_of(*parts: bytes) -> int:
    """A 64 bit hash of byte strings, the same in every process."""
    state = blake2b(digest_size=8, person=b"choices")
    for part in parts:
        state.update(len(part).to_bytes(4, "big") + part)
    return int.from_bytes(state.digest(), "big")
