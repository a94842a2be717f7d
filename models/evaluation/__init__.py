"""How good the samples of a model are: figures, and what they are compared with."""
