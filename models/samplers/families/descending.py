"""What samplers have in common that go through descending noise levels, whichever way these are chosen."""

from itertools import pairwise
from typing import Annotated, ClassVar

from pydantic import Field

from models.samplers.sampler import Model, Sampler, SamplerRefused, Sigma, Steps, known_sigma, otherwise


class Descending(Sampler):
    """From a first noise level to a last one, by a formula; or else through the levels of an explicit list."""

    counts: ClassVar[tuple[str, ...]] = ("levels", "sigmas")
    formula: ClassVar[tuple[str, ...]] = ("levels", "sigma_max", "sigma_min")  # the fields that choose the levels

    levels: Steps | None = None
    sigma_max: Sigma | None = None
    sigma_min: Sigma | None = None
    sigmas: Annotated[tuple[Sigma, ...], Field(max_length=1000)] | None = Field(
        None,
        exclude_if=lambda sigmas: sigmas is None,  # who lists no levels, which most never do, is told of none
        description="The noise levels themselves, descending, instead of what chooses them: for a published schedule "
        "that no formula gives.",
    )

    def carries(self, field: str) -> bool:
        """A list of levels excludes what chooses them, and the other way round."""
        if field == "sigmas":
            return all(getattr(self, name) is None for name in self.formula)
        return self.sigmas is None or field not in self.formula

    def listed(self, sigmas: tuple[float, ...], model: Model) -> list[float]:
        """The levels of an explicit list, checked.

        Raises:
            SamplerRefused: they do not descend, are one alone, the model does not know them, or another field would
                choose them too.
        """
        if chosen := [name for name in self.formula if getattr(self, name) is not None]:
            raise SamplerRefused("sigmas", f"{chosen[0]} chooses the levels, and so does a list of them", "one of both")
        if len(sigmas) < 2:
            raise SamplerRefused("sigmas", "a single level leads nowhere", "at least 2, descending")
        known = [known_sigma("sigmas", sigma, model) for sigma in sigmas]
        for before, after in pairwise(known):
            if after >= before:
                raise SamplerRefused(
                    "sigmas", f"{after:g} is not below {before:g}, which it follows", "descending levels"
                )
        return known

    def span(self, model: Model) -> tuple[float, float]:
        """The first and the last level, by default the model's own.

        Raises:
            SamplerRefused: the model does not know them, or they do not descend.
        """
        sigma_max, sigma_min = otherwise(self.sigma_max, model.sigma_max), otherwise(self.sigma_min, model.sigma_min)
        sigma_max = known_sigma("sigma_max", sigma_max, model)
        sigma_min = known_sigma("sigma_min", sigma_min, model)
        if sigma_min >= sigma_max:
            raise SamplerRefused(
                "sigma_min",
                f"{sigma_min:g} is not below sigma_max",
                f"below sigma_max, which is {sigma_max:g}",
                [
                    SamplerRefused(
                        "sigma_max", f"{sigma_max:g} is not above sigma_min", f"above sigma_min, which is {sigma_min:g}"
                    )
                ],
            )
        return sigma_max, sigma_min
