"""The batches of a run: which images, and all that is drawn at random for them."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from models.training.levels import stratified_log_normal, uniform
from models.training.objectives import Objective
from models.training.processes import Processes


@dataclass(frozen=True)
class Batch:
    """What a step sees, on the device.

    Args:
        x: images [n, c, h, w] in [0, 1].
        sigma: their noise levels [n].
        factors: what surrounds the network at these, [n, 4].
        normals: standard normal [k, n, c, h, w], as many as the objective asks for.
        label: int64 [n], the class of each image or the number of classes for none; None without classes.
    """

    x: Tensor
    sigma: Tensor
    factors: Tensor
    normals: Tensor
    label: Tensor | None

    def part(self, part: slice) -> "Batch":
        """Some of its images."""
        label = None if self.label is None else self.label[part]
        return Batch(self.x[part], self.sigma[part], self.factors[part], self.normals[:, part], label)


@dataclass(frozen=True)
class Draw:
    """What is drawn at random for an image.

    Args:
        seed: of all.
        log_mean, log_std: of the logarithm of a noise level.
        sigmas: the only noise levels, in place of these.
        flip: whether half of the images are mirrored.
        label_dropout: share of the images whose label is not told.
    """

    seed: int
    log_mean: float
    log_std: float
    sigmas: Sequence[float] | None
    flip: bool
    label_dropout: float


class Batches:
    """Makes the batch of any step, from a generator seeded by (seed, step); the order of images by (seed, epoch).

    Several processes draw the same and take a part of each batch, so together they see what one alone would see.

    Args:
        images: uint8 [n, c, h, w].
        labels: int64 [n]; None without classes.
        classes: how many classes there are.
        size: images of a batch.
        draw: what is drawn.
        objective: what it is drawn for.
        device: where it is needed.
        processes: this one among those that share each batch.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None,
        classes: int,
        size: int,
        draw: Draw,
        objective: Objective,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self._images, self._labels, self._classes, self.size = images, labels, classes, size
        self._random, self._objective, self._device = draw, objective, device
        self._part = processes.part(size)
        self.per_epoch = max(1, len(images) // size)
        self._epoch, self._order = -1, torch.empty(0)

    def ahead(self, start: int, stop: int) -> Iterator[Batch]:
        """This process's parts of the batches of steps `start` to `stop` - 1; each is made while the one before is
        trained on."""
        with ThreadPoolExecutor(1, "batches", initializer=torch.set_num_threads, initargs=(1,)) as pool:
            coming = pool.submit(self.batch, start) if start < stop else None
            for step in range(start, stop):
                assert coming is not None
                batch = coming.result()
                coming = pool.submit(self.batch, step + 1) if step + 1 < stop else None
                yield batch

    def batch(self, step: int) -> Batch:
        """This process's part of the batch of a step."""
        chosen = self.chosen(step)
        label = None if self._labels is None else self._labels[chosen]
        return self.draw(step, self._images[chosen], label)

    def chosen(self, step: int) -> Tensor:
        """Indices of the images of a step; each epoch is a fresh permutation."""
        epoch, position = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._order = torch.randperm(len(self._images), generator=self._generator(epoch, stream=1))
            self._epoch = epoch
        return self._order[position * self.size : (position + 1) * self.size]

    def draw(self, step: int, images: Tensor, label: Tensor | None) -> Batch:
        """All that is random in a step, for uint8 images [n, c, h, w] and their labels [n]; this process's part."""
        random, n, generator = self._random, len(images), self._generator(step, stream=0)
        if random.sigmas is None:
            sigma = stratified_log_normal(n, random.log_mean, random.log_std, generator)
        else:
            sigma = uniform(n, random.sigmas, generator)
        on_device = generator
        if self._device.type != "cpu":  # drawn where it is used, it need not be brought there
            on_device = torch.Generator(self._device).manual_seed(generator.initial_seed())
        normals = torch.randn((self._objective.normals, *images.shape), generator=on_device, device=self._device)
        if random.flip:
            mirrored = torch.rand(n, generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if label is not None:
            untold = torch.rand(n, generator=generator) < random.label_dropout
            label = torch.where(untold, self._classes, label)[self._part]
        images, sigma = images[self._part], sigma[self._part]
        factors = self._objective.factors(sigma.tolist())
        return Batch(
            x=self._sent(images).float() / 255,
            sigma=self._sent(sigma),
            factors=self._sent(factors),
            normals=normals[:, self._part],
            label=None if label is None else self._sent(label),
        )

    def _sent(self, values: Tensor) -> Tensor:
        """The values on the device; nothing waits for their way there."""
        if self._device.type == "cuda":
            return values.pin_memory().to(self._device, non_blocking=True)
        return values.to(self._device)

    def _generator(self, position: int, stream: int) -> torch.Generator:
        return torch.Generator().manual_seed((self._random.seed << 33) + (position << 1) + stream)
