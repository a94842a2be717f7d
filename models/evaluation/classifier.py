"""A small classifier, the judge of samples: trained once on the real images of a data set, then kept in a cache."""

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from models.files import cache_dir
from models.images import Pixels
from models.training.data.formats import DataError
from models.training.labelled import Labelled, Part, load_labelled

CACHE = cache_dir()
CONFIDENT = 0.9  # from which probability on an image counts as recognised

BATCH, LEARNING_RATE, SHIFT, SEED = 256, 4e-3, 2, 0


def convolutions(channels: int, classes: int) -> nn.Sequential:
    """Convolutions at ever lower resolutions, then one value of each feature: [n, c, h, w] in [0, 1] -> [n, classes].

    Args:
        channels: of an image. What is grey is told by its outline, what has colour by its parts too, and needs more.
        classes: one logit for each.
    """
    if channels == 1:
        return nn.Sequential(
            *_convolution(channels, 32, 5, stride=2),
            *_convolution(32, 64, 3),
            nn.MaxPool2d(2),
            *_convolution(64, 128, 3),
            *_convolution(128, 128, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, classes),
        )
    return nn.Sequential(
        *_convolution(channels, 64, 3),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(64, 64, 3),
        *_convolution(64, 128, 3),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(128, 256, 3),
        nn.MaxPool2d(2, ceil_mode=True),
        *_convolution(256, 256, 3),
        *_convolution(256, 256, 3),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(256, classes),
    )


def epochs(channels: int) -> int:
    """How often every image is seen."""
    return 5 if channels == 1 else 8


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


@dataclass(frozen=True)
class Judged:
    """What the classifier makes of the real test images.

    Args:
        accuracy: share of them named rightly.
        recognised: share with a probability above CONFIDENT for some class, right or wrong.
    """

    accuracy: float
    recognised: float


class Classifier:
    """A trained network and how it did on the test images, which it never saw.

    Args:
        network: its weights are trained.
        shape: channels, height, width of an image.
        test: how it did.
        key: names the data and the code that it came from.
        device: torch device name.
    """

    def __init__(
        self, network: nn.Sequential, shape: tuple[int, ...], test: Judged, key: str, device: str | torch.device = "cpu"
    ) -> None:
        self.network, self.shape, self.test, self.key = network.to(device).eval(), shape, test, key

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Probabilities [n, classes] of the classes for images uint8 [n, h, w, c].

        Raises:
            ValueError: the images have another shape than those that it learned from.
        """
        return _probabilities(self.network, self._images(pixels))

    def features(self, pixels: Pixels) -> NDArray[np.float32]:
        """What the last layer sees of images uint8 [n, h, w, c]: [n, 128], or [n, 256] of those with colours.

        Raises:
            ValueError: the images have another shape than those that it learned from.
        """
        return _outputs(nn.Sequential(*list(self.network)[:-1]), self._images(pixels)).numpy()

    def _images(self, pixels: Pixels) -> Tensor:
        channels, height, width = self.shape
        if pixels.shape[1:] != (height, width, channels):
            raise ValueError(f"the classifier looks at {[height, width, channels]}, not at {list(pixels.shape[1:])}")
        return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)


def load(
    data: Path,
    cache: Path = CACHE,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Classifier:
    """The classifier of the labelled data set in a directory or a file; see `classifier_of`.

    Raises:
        DataError: the data set is missing, damaged or too small.
        OSError: the cache cannot be written.
    """
    return classifier_of(load_labelled(data), cache, device, on_step)


def classifier_of(
    data: Labelled,
    cache: Path = CACHE,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int], None] = lambda _done, _of: None,
) -> Classifier:
    """The classifier of a labelled data set: read from `cache`, or else trained and written there.

    Args:
        data: the data set.
        cache: directory of the classifiers' weights.
        device: where it is trained and looks at images.
        on_step: called with the steps done and all of them, should it be trained.

    Raises:
        DataError: the data set has fewer training images than one batch.
        OSError: the cache cannot be written.
    """
    key = _key(data)
    path = cache / f"classifier-{key}.safetensors"
    shape = tuple(data.train.images.shape[1:])
    if path.is_file():
        with torch.device("meta"):  # without first weights, so without random numbers
            network = convolutions(shape[0], data.classes)
        with safetensors.safe_open(path, framework="pt") as file:
            test = Judged(**json.loads(file.metadata()["test"]))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        network.load_state_dict(state, assign=True)
        return Classifier(network, shape, test, key, device)
    network = fit(data.train, data.classes, device, on_step)
    test = judge(network, data.test)
    cache.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(f".{os.getpid()}")
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    safetensors.torch.save_file(state, aside, {"test": json.dumps(asdict(test))})
    aside.replace(path)
    return Classifier(network, shape, test, key, device)


def fit(
    train: Part,
    classes: int,
    device: str | torch.device = "cpu",
    on_step: Callable[[int, int], None] = lambda _done, _of: None,
) -> nn.Sequential:
    """A network trained on images that are shifted at random by up to SHIFT pixels, and their labels.

    Those with colours are mirrored left to right, every other one: what is photographed has no left and right, letters
    and clothes have.

    Raises:
        DataError: there are fewer images than one batch.
    """
    channels = train.images.shape[1]
    steps = epochs(channels) * (len(train.images) // BATCH)
    if not steps:
        raise DataError(f"a classifier needs at least {BATCH} training images, not {len(train.images)}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = convolutions(channels, classes).to(device).train()
        half = False
        if channels > 1:  # many products: twice as fast so
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            half = torch.device(device).type == "cpu" and torch.cpu._is_avx512_bf16_supported()
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
        for step, (x, y) in enumerate(_batches(train), 1):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = F.cross_entropy(network(x.to(device)), y.to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            on_step(step, steps)
    return network


def _batches(train: Part) -> Iterator[tuple[Tensor, Tensor]]:
    """Every image once an epoch: float32 [BATCH, c, h, w] in [0, 1], and labels int64 [BATCH]."""
    channels, height, width = train.images.shape[1:]
    padded = F.pad(train.images, (SHIFT,) * 4)
    windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # a view: [n, c, shift, shift, h, w]
    for _ in range(epochs(channels)):
        for chosen in torch.randperm(len(train.images)).split(BATCH):
            if len(chosen) == BATCH:
                down, right = torch.randint(2 * SHIFT + 1, (2, BATCH)).unbind()
                x = windows[chosen, :, down, right].float() / 255
                if channels > 1:
                    x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
                yield x, train.labels[chosen].long()


def judge(network: nn.Module, test: Part) -> Judged:
    """How a network does on images and labels."""
    probabilities = _probabilities(network.eval(), test.images)
    right = probabilities.argmax(1) == test.labels.numpy()
    return Judged(float(right.mean()), float((probabilities.max(1) > CONFIDENT).mean()))


def _probabilities(network: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """[n, classes] for images uint8 [n, c, h, w]."""
    probabilities: NDArray[np.float32] = _outputs(network, images).softmax(1).numpy()
    return probabilities


@torch.inference_mode()
def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images uint8 [n, c, h, w], float32 on the CPU."""
    device = next(network.parameters()).device
    return torch.cat([network(part.to(device).float() / 255).cpu() for part in images.split(500)])


def _key(data: Labelled) -> str:
    """Names the data and the code that the weights follow from."""
    settings = f"{BATCH, LEARNING_RATE, SHIFT, SEED}"
    code = "".join(inspect.getsource(part) for part in (convolutions, epochs, _convolution, fit, _batches, judge))
    digest = hashlib.sha256((settings + code).encode())
    for tensor in (data.train.images, data.train.labels, data.test.images, data.test.labels):
        digest.update(hashlib.sha256(tensor.contiguous().numpy().data).digest())
    return digest.hexdigest()[:16]
