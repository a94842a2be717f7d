"""Studies on pictures: why one noise level does not do, what noise hides, and annealed Langevin dynamics on its way."""
