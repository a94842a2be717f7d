"""Weights of a U-Net put into a deeper one, whose score is the same to begin with."""

import torch
from torch import Tensor, nn

from models.networks.unet import Stage, UNet

FILM = ("film.weight", "film.bias")  # the rows of all blocks, one block after another
LAST = (".conv_out.weight", ".conv_out.bias", ".out.weight", ".out.bias")  # of a block, and of its attention


def deepened(weights: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Weights by name for a network that has more blocks in some stages than they know: these come last in their stage.

    A block that is added changes nothing that goes through it, as its last layer begins at zero, and so does that of
    its attention; what it does it learns from there (the way of Chen, Goodfellow & Shlens 2016, Net2Net).

    Returns:
        Those that are given, with those of the blocks that they lack; as they are given for a network of another kind.
    """
    if not isinstance(network, UNet) or any(name not in weights for name in FILM):
        return weights
    own, out = network.state_dict(), dict(weights)
    films: dict[str, list[Tensor]] = {name: [] for name in FILM}
    row = 0
    down = [(f"down.{i}", stage) for i, stage in enumerate(network.down)]
    up = [(f"up.{i}", stage) for i, stage in enumerate(network.up)]
    for prefix, stage in down + up[::-1]:
        assert isinstance(stage, Stage)
        for block, size in enumerate(stage.film_sizes):
            known = f"{prefix}.blocks.{block}.conv_out.weight" in weights
            for name in FILM:
                rows = weights[name][row : row + size]
                films[name].append(rows if known else weights[name].new_zeros(size, *rows.shape[1:]))
            if known:
                row += size
                continue
            for name in own:
                if name.startswith((f"{prefix}.blocks.{block}.", f"{prefix}.attention.{block}.")):
                    out[name] = torch.zeros_like(own[name]) if name.endswith(LAST) else own[name]
    return out | {name: torch.cat(parts) for name, parts in films.items()}
