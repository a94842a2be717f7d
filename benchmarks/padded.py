"""Padded batches: as wide until the end as at the beginning."""

from models.sampling.chain import Chain
from models.sampling.engine import Engine


def run_padded(engine: Engine, chains: list[Chain]) -> None:
    """Runs a batch to the end of its longest chain; others in the place of those that are done are thrown away.

    Args:
        engine: has no active chains, and slots for all.
        chains: their `x` is the result.
    """
    longest = max(chains, key=lambda chain: chain.remaining)
    engine.admit(chains)
    while longest.remaining:
        done = engine.step()
        if longest.remaining:
            engine.admit([Chain(longest.table, 0, 0) for _ in done])
    engine.evict(list(engine.chains))
