import pytest
import torch

from models.card import ModelCard, NetworkSpec
from models.parametrisation import Consistency
from models.score import ScoreModel
from models.store import ModelStore
from models.training.distillation.teacher import student_of


def test_the_student_begins_as_the_teachers_denoiser(plane: ModelStore) -> None:
    card = plane.card("plane")
    teacher = ScoreModel.load(plane, card)
    spec = student_of(card)
    student = ScoreModel(teacher.network, spec.parametrised(None), card.image)
    x = 2 * torch.randn(16, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(student.denoise(x, 2.0), teacher.denoise(x, 2.0), atol=0.02)
    assert torch.allclose(student.denoise(x, card.sigma_min), x, atol=1e-6)


def test_of_a_guided_model_it_is_the_network_that_is_guided(plane: ModelStore) -> None:
    card = plane.card("plane")
    guided = {"main": card.network.arguments, "guide": card.network.arguments, "weight": 2.0, "interval": None}
    network = NetworkSpec(kind="guided-unet", arguments=guided, data_mean=0.5, data_std=0.2)
    student = student_of(card.model_copy(update={"network": network}))
    assert (student.kind, student.arguments) == ("unet", card.network.arguments)


def consistent(card: ModelCard) -> ModelCard:
    network = card.network.model_copy(update={"parametrisation": Consistency(s_min=0.01)})
    return card.model_copy(update={"network": network})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (consistent, "plane is a consistency model already"),
        (lambda card: card.model_copy(update={"sigmas": (4.0, 0.01)}), "that takes a model of EDM's preconditioning"),
        (
            lambda card: card.model_copy(update={"classes": ("a",), "needs_label": True}),
            "it was never trained without a label",
        ),
    ],
)
def test_what_cannot_be_distilled_is_told(plane: ModelStore, change, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=why):
        student_of(change(plane.card("plane")))
