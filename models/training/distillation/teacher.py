"""The model that a distilled one learns from, and what becomes of its network."""

from models.card import ModelCard, NetworkSpec
from models.parametrisation import Consistency, Edm


def student_of(card: ModelCard) -> NetworkSpec:
    """The network of a model, of a guided one that which is guided, as a consistency model.

    It sees and is told what it was; so it begins as the denoiser that it is, but for the smallest noise level, at which
    a consistency model changes nothing.

    Args:
        card: of the teacher.

    Raises:
        ValueError: the model cannot be distilled; the message says why.
    """
    if not card.denoises:
        raise ValueError(f"{card.name} is a consistency model already: distil the model that it was distilled from")
    edm = card.network.parametrised(card.sigmas)
    if card.sigmas is not None or not isinstance(edm, Edm):
        raise ValueError(
            f"{card.name} cannot be distilled: that takes a model of EDM's preconditioning that knows all noise levels "
            "of a range, as the U-Nets of `scoreserve train` do"
        )
    if card.needs_label:
        raise ValueError(
            f"{card.name} cannot be distilled: it was never trained without a label, as some of the images are shown"
        )
    guided = card.network.kind == "guided-unet"
    return NetworkSpec.model_validate(
        {
            "kind": "unet" if guided else card.network.kind,
            "arguments": card.network.arguments["main"] if guided else card.network.arguments,
            "data_mean": card.network.data_mean,
            "data_std": card.network.data_std,
            "parametrisation": Consistency(
                name="consistency",
                pixels=edm.pixels,
                data_mean=edm.data_mean,
                data_std=edm.data_std,
                s_min=edm.scale * card.sigma_min,
                times=edm.times,
            ),
        }
    )
