from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.networks.ncsnpp import NCSNpp, Resample

SMALL: dict[str, Any] = {"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": [False, True, False]}
KINDS = [
    SMALL,
    SMALL | {"kernel": [1, 1], "picture_in": None, "fourier": False, "classes": 3},
    SMALL | {"picture_in": "skip", "pictures_out": True, "rescale": False, "image_channels": 1},
]
IDS = ["NCSN++", "DDPM++ with classes", "pictures in and out"]


def perturbed(**arguments: Any) -> NCSNpp:
    torch.manual_seed(0)
    network = NCSNpp(**arguments).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_the_output_is_shaped_as_the_image_and_every_weight_takes_part(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(4, arguments.get("image_channels", 3), 16, 16)
    label = torch.tensor([0, 1, 2, 3]) if "classes" in arguments else None
    out = network(x, network.condition(torch.tensor([3.0, -1.0, 0.5, 2.0]), label))
    assert out.shape == x.shape
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


@pytest.mark.parametrize("arguments", KINDS, ids=IDS)
def test_an_image_has_the_same_bits_at_every_width(arguments: dict[str, Any]) -> None:
    network = perturbed(**arguments)
    x = torch.randn(19, arguments.get("image_channels", 3), 16, 16)
    with torch.inference_mode():
        condition = torch.cat([network.condition(torch.tensor([0.3 * i])) for i in range(len(x))])
        wide = network(x, condition)
        for width in (2, 3, 5, 8, 16, 17):
            assert torch.equal(network(x[:width], condition[:width]), wide[:width])


def test_a_class_changes_what_the_network_is_told_and_the_last_is_none() -> None:
    network = perturbed(**KINDS[1])
    level = torch.tensor([0.5])
    told = [network.condition(level, torch.tensor([label])) for label in range(4)]
    assert all((a - b).abs().max() > 1e-3 for a, b in pairwise(told))
    assert torch.equal(told[3], network.condition(level))


def test_the_short_filter_gives_means_and_copies() -> None:
    x = torch.randn(2, 3, 8, 8)
    assert torch.allclose(Resample([1, 1], "down")(x), F.avg_pool2d(x, 2), atol=1e-6)
    assert torch.allclose(Resample([1, 1], "up")(x), F.interpolate(x, scale_factor=2.0), atol=1e-6)


def test_the_long_filter_weighs_nine_parts_to_three_to_one() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[0, 0, 4, 4] = 64
    down = Resample([1, 3, 3, 1], "down")(x)[0, 0]
    assert down[1:4, 1:4].tolist() == [[1, 3, 0], [3, 9, 0], [0, 0, 0]]
    up = Resample([1, 3, 3, 1], "up")(x)[0, 0]
    assert up.sum() == 4 * 64
    assert up[7:11, 7:11].tolist() == [[4, 12, 12, 4], [12, 36, 36, 12], [12, 36, 36, 12], [4, 12, 12, 4]]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"attention": [True]}, "multipliers and attention have 3 and 1 entries"),
        ({"multipliers": [], "attention": []}, "have 0 and 0 entries"),
        ({"kernel": [1, 2, 1]}, "a filter must be symmetric"),
        ({"kernel": [1, 2]}, "a filter must be symmetric"),
        ({"kernel": [0, 0]}, "of positive sum"),
        ({"picture_in": "cat"}, "allowed: skip, residual"),
        ({"noise_channels": 2}, "even and at least 4"),
        ({"channels": 6}, "divisible"),
    ],
)
def test_a_network_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        NCSNpp(**SMALL | arguments)


LAYERS = {
    "norm1": "norm_in",
    "conv1": "conv_in",
    "time_emb_proj": "film",
    "norm2": "norm_out",
    "conv2": "conv_out",
    "conv_shortcut": "skip",
}


def ours(theirs: dict[str, Tensor], levels: int) -> dict[str, Tensor]:
    """Weights of the NCSN++ of diffusers, of one block a level, by our names."""
    found: dict[str, Tensor] = {"frequencies": theirs.pop("time_proj.weight")}
    blocks = {f"mid_block.resnets.{i}": f"middle.{i}" for i in range(2)} | {"mid_block": "middle.0"}
    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        blocks |= {f"{down}.resnets.0": f"down.{2 * level}", f"{down}.resnet_down": f"down.{2 * level + 1}"}
        blocks |= {f"{up}.resnets.{i}": f"up.{3 * level + i}" for i in range(2)}
        blocks |= {f"{up}.resnet_up": f"up.{3 * level + 2}", down: f"down.{2 * level}", up: f"up.{3 * level + 1}"}
    plain = {"conv_in": "conv_in", "time_embedding.linear_1": "embed.0", "time_embedding.linear_2": "embed.2"}
    plain |= {f"down_blocks.{level}.skip_conv": f"pictures.{level}.conv" for level in range(levels)}
    for level in range(levels):
        plain |= {f"up_blocks.{level}.skip_{kind}": f"to_pixels.{level}.{kind}" for kind in ("norm", "conv")}
    plain |= {"conv_norm_out": f"to_pixels.{levels - 1}.norm", "conv_out": f"to_pixels.{levels - 1}.conv"}
    for name, tensor in theirs.items():
        module, _, last = name.rpartition(".")
        block, _, layer = module.rpartition(".")
        room, _, attention = module.partition(".attentions.0.")
        if attention == "to_q":
            parts = [theirs[f"{room}.attentions.0.to_{part}.{last}"] for part in "qkv"]
            whole = torch.cat(parts)
            found[f"{blocks[room]}.attention.qkv.{last}"] = whole[..., None, None] if last == "weight" else whole
        elif attention == "to_out.0":
            found[f"{blocks[room]}.attention.out.{last}"] = tensor[..., None, None] if last == "weight" else tensor
        elif attention == "group_norm":
            found[f"{blocks[room]}.attention.norm.{last}"] = tensor
        elif not attention:
            found[f"{plain[module] if module in plain else f'{blocks[block]}.{LAYERS[layer]}'}.{last}"] = tensor
    return found


def test_pictures_go_in_and_out_as_in_the_ncsnpp_of_diffusers() -> None:
    from diffusers import UNet2DModel  # noqa: PLC0415 (takes seconds, and every process of the suite reads this file)

    torch.manual_seed(0)
    theirs = UNet2DModel(
        sample_size=16,
        time_embedding_type="fourier",
        freq_shift=0,
        block_out_channels=(128, 128, 128),
        layers_per_block=1,
        down_block_types=("SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"),
        up_block_types=("SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"),
        mid_block_scale_factor=2**0.5,
        norm_eps=1e-6,
        norm_num_groups=None,
        attention_head_dim=None,
    ).eval()
    network = NCSNpp(
        multipliers=[1, 1, 1], blocks=1, attention=[False, True, False], picture_in="skip", pictures_out=True
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    network.load_state_dict(ours(dict(theirs.state_dict()), 3))
    x, sigma = torch.randn(2, 3, 16, 16), torch.tensor([0.3, 4.0])
    with torch.inference_mode():
        expected = theirs(x, sigma).sample * sigma[:, None, None, None]
        found = network(x, network.condition(sigma.log()))
    assert (found - expected).abs().max() < 2e-5 * expected.abs().max()


def test_ddpmpp_is_told_the_sines_and_cosines_of_ddpm() -> None:
    from diffusers.models.embeddings import get_timestep_embedding  # noqa: PLC0415

    network = NCSNpp(**KINDS[1] | {"classes": 0})
    told: list[Tensor] = []
    network.embed.register_forward_pre_hook(lambda _module, inputs: told.append(inputs[0]))
    times = torch.tensor([0.3, 17.25, 999.0])
    network.condition(times)
    expected = get_timestep_embedding(times, 8, downscale_freq_shift=1, flip_sin_to_cos=False)
    assert torch.allclose(told[0], expected, atol=1e-4)
    assert not torch.allclose(told[0].flip(1), expected, atol=1e-4)
