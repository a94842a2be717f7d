"""FID and Inception score, by the network that all published ones are measured with.

The network is torch-fidelity's (the extra `fid`), which follows the one of 2015, its way of resizing included. Its
weights are a file that is given: weights-inception-2015-12-05-6726825d.pth of torch-fidelity's releases.
"""

import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models import files
from models.evaluation.distances import Features, Moments, frechet_of_moments
from models.images import Pixels

NAME, LAYERS = "inception-v3-compat", ["2048", "logits_unbiased"]
BATCH = 64
SPLITS = 10  # Salimans 2016 and all since
USUAL = 50_000  # images that published FIDs are of


class NoInception(RuntimeError):
    """The network is not to be had; the message says what is missing."""


@dataclass(frozen=True)
class InceptionFigures:
    """What is published of CIFAR-10.

    Args:
        images: how many samples it is of; FID needs USUAL of them, and with fewer it is larger.
        fid: Frechet distance to all training images.
        score: Inception score, the mean of SPLITS parts.
        score_deviation: the deviation of the parts.
    """

    images: int
    fid: float
    score: float
    score_deviation: float


class Inception:
    """The Inception network of 2015.

    Args:
        weights: path of its weights.
        device: torch device name.

    Raises:
        NoInception: a package is missing, or the file is missing, damaged, or holds something else.
    """

    def __init__(self, weights: Path, device: str | torch.device = "cpu") -> None:
        try:
            from torch_fidelity import FeatureExtractorInceptionV3  # noqa: PLC0415 (only the extra `fid` brings it)
        except ImportError as error:
            raise NoInception(f"FID needs torch-fidelity and torchvision ({error}): install scoreserve[fid]") from error
        try:
            data = weights.read_bytes()
            # torch-fidelity would run whatever code a pickle holds: this refuses all but tensors.
            torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
            self.network = FeatureExtractorInceptionV3(NAME, LAYERS, feature_extractor_weights_path=str(weights))
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
            reason = " ".join(str(error).split())[:200]
            raise NoInception(
                f"{weights} cannot be read as the weights of torch-fidelity's Inception: {reason}"
            ) from error
        self.network.to(device).eval()
        self.device, self.sha256 = device, hashlib.sha256(data).hexdigest()

    @torch.inference_mode()
    def look(
        self, pixels: Pixels, on_images: Callable[[int], None] = lambda _: None
    ) -> tuple[Features, NDArray[np.float32]]:
        """Features [n, 2048] and logits without bias [n, 1008] of images uint8 [n, h, w, c], c being 1 or 3.

        Grey images are looked at as grey RGB ones. `on_images` is called with the number of images looked at.

        Raises:
            ValueError: the images are of neither one channel nor three.
        """
        if pixels.shape[3] not in (1, 3):
            raise ValueError(f"Inception looks at images of 1 or 3 channels, not of {pixels.shape[3]}")
        features, logits = [], []
        for start in range(0, len(pixels), BATCH):
            part = torch.from_numpy(pixels[start : start + BATCH].copy()).permute(0, 3, 1, 2)
            outputs: Any = self.network(part.expand(-1, 3, -1, -1).to(self.device))
            features.append(outputs[0].float().cpu().numpy())
            logits.append(outputs[1].float().cpu().numpy())
            on_images(start + len(part))
        return np.concatenate(features), np.concatenate(logits)

    def figures(
        self, pixels: Pixels, real: Moments, on_images: Callable[[int], None] = lambda _: None
    ) -> InceptionFigures:
        """Of samples uint8 [n, h, w, c], and the features' moments of the training images."""
        features, logits = self.look(pixels, on_images)
        score, deviation = inception_score(logits)
        return InceptionFigures(len(pixels), frechet_of_moments(Moments.of(features), real), score, deviation)

    def moments(
        self, pixels: Pixels, data_sha256: str, cache: Path, on_images: Callable[[int], None] = lambda _: None
    ) -> Moments:
        """Moments of the features of images uint8 [n, h, w, c], kept in `cache` under the sha256 of the data."""
        path = cache / f"inception-{self.sha256[:8]}-{data_sha256[:16]}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return Moments(kept["mean"], kept["covariance"])
        moments = Moments.of(self.look(pixels, on_images)[0])
        file = io.BytesIO()
        np.savez(file, mean=moments.mean, covariance=moments.covariance)
        files.write(path, file.getvalue())
        return moments


def inception_score(logits: NDArray[np.float32]) -> tuple[float, float]:
    """Mean and deviation over SPLITS parts of exp E KL(p(y|x) || p(y)) (Salimans 2016, section 4).

    Args:
        logits: [n, classes], n at least SPLITS; they are shuffled first, as their order may be that of the classes.
    """
    n = len(logits)
    shuffled = logits[np.random.RandomState(2020).permutation(n)].astype(np.float64)  # as torch-fidelity does
    shifted = shuffled - shuffled.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    scores = []
    for i in range(SPLITS):
        part = logs[i * n // SPLITS : (i + 1) * n // SPLITS]
        p = np.exp(part)
        scores.append(np.exp((p * (part - np.log(p.mean(0)))).sum(1).mean()))
    return float(np.mean(scores)), float(np.std(scores))
