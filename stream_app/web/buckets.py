"""What may be taken a second: of requests by one address, of samples by a stream."""

from __future__ import annotations


class Bucket:
    """Something that fills evenly up to a limit, and that is taken from.

    Args:
        per_s: What flows in.
        most: What it holds at most.
        left: What is in it at first.
        now_s: Seconds of a rising clock.

    >>> bucket = Bucket(per_s=2.0, most=4.0, left=4.0, now_s=10.0)
    >>> bucket.take(3.0, now_s=10.0), bucket.take(2.0, now_s=10.0), bucket.take(2.0, now_s=10.5)
    (0.0, 0.5, 0.0)
    """

    __slots__ = ("_left", "_most", "_per_s", "_then_s")

    def __init__(self, per_s: float, most: float, left: float, now_s: float) -> None:
        self._per_s = per_s
        self._most = most
        self._left = left
        self._then_s = now_s

    def take(self, cost: float, now_s: float) -> float:
        """Take `cost` where so much is there, else nothing.

        Returns:
            Seconds until there will be enough; 0 where it was taken.
        """
        self._left = min(self._most, self._left + (now_s - self._then_s) * self._per_s)
        self._then_s = now_s
        if self._left < cost:
            return (cost - self._left) / self._per_s
        self._left -= cost
        return 0.0
