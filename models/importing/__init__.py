"""Checkpoints of other code, turned into models of a ModelStore."""
