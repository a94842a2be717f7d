"""From two trained models to a guided one."""

import math
from datetime import UTC, datetime
from pathlib import Path

import safetensors.torch

from models.card import ModelCard, NetworkSpec
from models.store import ModelStore, sha256


def publish_guided(
    store: ModelStore,
    main: ModelCard,
    guide: ModelCard,
    weight: float,
    command: str,
    interval: tuple[float, float] | None = None,
) -> tuple[ModelCard, Path]:
    """Publishes `main` guided by `guide` as the next version of `main`; returns the card and its directory.

    Args:
        store: holds both models, and takes the new one.
        main: the better model.
        guide: a worse one of the same images, smaller or less trained.
        weight, interval: see GuidedUNet.
        command: what the card says it was made with.

    Raises:
        ValueError: the models are no pair, or the interval is none.
        ModelNotFound, BrokenModel: the weights of one of them are gone or damaged.
    """
    if not main.network.kind == guide.network.kind == "unet":
        raise ValueError(f"only a unet can guide a unet, not a {guide.network.kind} a {main.network.kind}")
    if main.classes or guide.classes:
        raise ValueError("models with classes are guided by their labels, as a request asks for: no guide is needed")
    if not math.isfinite(weight):
        raise ValueError(f"the weight is {weight}; allowed: a finite number, usually 1.5 to 3")
    if interval and not 0 <= interval[0] < interval[1] < math.inf:
        raise ValueError(
            f"the interval of noise levels is to go up, not from {interval[0]:g} to {interval[1]:g}; the largest that "
            f"{main.name} knows is {main.sigma_max:g}"
        )
    for what, of_main, of_guide in (
        ("image shapes", main.image, guide.image),
        ("means of the data", main.network.data_mean, guide.network.data_mean),
        ("deviations of the data", main.network.data_std, guide.network.data_std),
    ):
        if of_main != of_guide:
            raise ValueError(f"{main.name} and {guide.name} differ in their {what}: train both on the same images")
    theirs = [card.network.parametrised(card.sigmas) for card in (main, guide)]
    usual = main.network.model_copy(update={"parametrisation": None}).parametrised(main.sigmas)
    if theirs != [usual, usual]:
        raise ValueError(
            f"the parametrisation of {main.name} is {theirs[0].name} and that of {guide.name} {theirs[1].name}; "
            f"allowed: {usual.name} for both, as `scoreserve train` makes them. A consistency model is guided by "
            "distilling a guided one"
        )
    state = {
        f"{role}.{name}": tensor
        for role, card in (("main", main), ("guide", guide))
        for name, tensor in safetensors.torch.load(store.weights(card)).items()
    }
    if wrong := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ValueError(f"not all weights are finite: {', '.join(wrong[:3])} and so on; train that model again")
    weights = safetensors.torch.save(state)
    how = {"weight": weight, "interval": list(interval) if interval else None}
    arguments = {"main": main.network.arguments, "guide": guide.network.arguments, **how}
    guidance = {"command": command, **how, "guide": guide.provenance}
    card = main.model_copy(
        update={
            "version": store.next_version(main.name),
            "created_at": datetime.now(UTC),
            "network": NetworkSpec(
                kind="guided-unet",
                arguments=arguments,
                data_mean=main.network.data_mean,
                data_std=main.network.data_std,
            ),
            "provenance": main.provenance | {"guidance": guidance},
            "metrics": {},
            "weights_sha256": sha256(weights),
        }
    )
    return card, store.publish(card, weights)
