"""Priority: what goes first among the jobs of one client, and how large its share is among clients. Torch-free."""

from enum import StrEnum


class Priority(StrEnum):
    """How urgent a job is.

    A client's own jobs go strictly in this order. Between clients it is a weight, so that none can lock out another: of
    two clients that both wait, one with a high job gets eight image-steps for each of one with a normal job.
    """

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """Lower goes first."""
        return _RANKS[self]

    @property
    def weight(self) -> float:
        """Share among clients."""
        return _WEIGHTS[self]


_RANKS = {priority: rank for rank, priority in enumerate(Priority)}
_WEIGHTS = {priority: 8.0 ** (1 - rank) for priority, rank in _RANKS.items()}
