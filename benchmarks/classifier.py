"""A small digit classifier, the judge of `benchmarks.quality`: trained once on the real digits, then kept under var/.

`python -m benchmarks.classifier --data DIR` trains it, if it is not there yet, and says how good it is.
"""

import argparse
import hashlib
import inspect
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks import report
from models.images import Pixels
from models.training.formats.idx import load_mnist

CACHE = Path(__file__).parent.parent / "var" / "benchmarks"
CONFIDENT = 0.9  # from which probability on an image counts as recognised

EPOCHS, BATCH, LEARNING_RATE, SHIFT, SEED = 5, 256, 4e-3, 2, 0


class Network(nn.Sequential):
    """Convolutions at 14x14 and 7x7, a mean over positions, ten logits: [n, 1, 28, 28] in [0, 1] -> [n, 10]."""

    def __init__(self) -> None:
        super().__init__(
            *_convolution(1, 32, 5, stride=2),
            *_convolution(32, 64, 3),
            nn.MaxPool2d(2),
            *_convolution(64, 128, 3),
            *_convolution(128, 128, 3),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(128, 10),
        )


def _convolution(in_channels: int, out_channels: int, size: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(in_channels, out_channels, size, stride, padding=size // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels), nn.ReLU()]


@dataclass(frozen=True)
class Judged:
    """What the classifier makes of the real test digits.

    Args:
        accuracy: share of them named rightly.
        recognised: share with a probability above CONFIDENT for some class, right or wrong.
    """

    accuracy: float
    recognised: float


class Classifier:
    """A trained network and how it did on the test digits it never saw."""

    def __init__(self, network: Network, test: Judged) -> None:
        self.network, self.test = network.eval(), test

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Probabilities [n, 10] of the ten digits for images uint8 [n, 28, 28, 1].

        Raises:
            ValueError: the images have another shape.
        """
        return _probabilities(self.network, _from_pixels(pixels))

    def features(self, pixels: Pixels) -> NDArray[np.float32]:
        """What the last layer sees of images uint8 [n, 28, 28, 1]: [n, 128].

        Raises:
            ValueError: the images have another shape.
        """
        return _outputs(nn.Sequential(*list(self.network)[:-1]), _from_pixels(pixels)).numpy()


def load(data: Path, cache: Path = CACHE) -> Classifier:
    """The classifier of a data set in MNIST's format: read from `cache`, or else trained and written there.

    Raises:
        DataError: the data set is missing or damaged.
    """
    train, test = load_mnist(data, "train"), load_mnist(data, "t10k")
    path = cache / f"classifier-{_key(*train, *test)}.safetensors"
    network = Network()
    if path.is_file():
        with safetensors.safe_open(path, framework="pt") as file:
            judged = Judged(**json.loads(file.metadata()["test"]))
            network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
        return Classifier(network, judged)
    network = fit(*train)
    judged = judge(network, *test)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    safetensors.torch.save_file(network.state_dict(), aside, {"test": json.dumps(asdict(judged))})
    aside.replace(path)
    return Classifier(network, judged)


def fit(images: Tensor, labels: Tensor) -> Network:
    """A network trained on images uint8 [n, 1, 28, 28], shifted at random by up to SHIFT pixels, and labels [n]."""
    torch.manual_seed(SEED)
    network = Network().train()
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=1e-2)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, steps)
    for x, y in _batches(images, labels):
        loss = F.cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


def _batches(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """EPOCHS times every image once: float32 [BATCH, 1, 28, 28] in [0, 1], and labels int64 [BATCH]."""
    size = images.shape[-1]
    padded = F.pad(images[:, 0], (SHIFT,) * 4)
    windows = padded.unfold(1, size, 1).unfold(2, size, 1)  # a view: [n, shift, shift, 28, 28]
    for _ in range(EPOCHS):
        for chosen in torch.randperm(len(images)).split(BATCH):
            if len(chosen) == BATCH:
                down, right = torch.randint(2 * SHIFT + 1, (2, BATCH)).unbind()
                yield windows[chosen, down, right].unsqueeze(1).float() / 255, labels[chosen].long()


def judge(network: nn.Module, images: Tensor, labels: Tensor) -> Judged:
    """How a network does on images uint8 [n, 1, 28, 28] with labels [n]."""
    probabilities = _probabilities(network.eval(), images)
    right = probabilities.argmax(1) == labels.numpy()
    return Judged(float(right.mean()), float((probabilities.max(1) > CONFIDENT).mean()))


def _from_pixels(pixels: Pixels) -> Tensor:
    if pixels.shape[1:] != (28, 28, 1):
        raise ValueError(f"the classifier looks at [n, 28, 28, 1], not at {list(pixels.shape)}")
    return torch.from_numpy(pixels.copy()).permute(0, 3, 1, 2)


def _probabilities(network: nn.Module, images: Tensor) -> NDArray[np.float32]:
    """[n, 10] for images uint8 [n, 1, 28, 28]."""
    return _outputs(network, images).softmax(1).numpy()


@torch.inference_mode()
def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    """What a network makes of images uint8 [n, 1, 28, 28], in float32."""
    return torch.cat([network(part.float() / 255) for part in images.split(500)])


def _key(*data: Tensor) -> str:
    """Names the data and the code that the weights follow from."""
    settings = f"{EPOCHS, BATCH, LEARNING_RATE, SHIFT, SEED}"
    code = "".join(inspect.getsource(part) for part in (Network, _convolution, fit, _batches, judge))
    digest = hashlib.sha256((settings + code).encode())
    for tensor in data:
        digest.update(hashlib.sha256(tensor.numpy().tobytes()).digest())
    return digest.hexdigest()[:16]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.classifier", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="directory of the MNIST idx files")
    arguments = parser.parse_args()
    machine, start = report.environment(), time.perf_counter()
    test = load(arguments.data).test
    print(report.describe(machine))
    print(f"ready after {time.perf_counter() - start:.1f} s")
    print(f"real test digits: {test.accuracy:.2%} named rightly, {test.recognised:.1%} with p > {CONFIDENT}")


if __name__ == "__main__":
    main()
