"""Writes parzen_mnist_5k.json beside itself: .venv/bin/python tests/references/parzen_mnist_5k.py

The mean Parzen log-likelihood of mnist-5k's 1,000 test images under its 4,000 training images, for each sigma of
Goodfellow's grid: differences taken pixel by pixel and summed by scipy, float64. Only the images come from lib.
"""

import json
from pathlib import Path

import numpy as np
import scipy.spatial
import scipy.special

from lib import datasets

TARGET = Path(__file__).with_suffix(".json")


def main() -> None:
    data = datasets.load("mnist-5k")
    samples, test = (data.split(name)[0].flatten(1).numpy() / 255 for name in ("train", "test"))
    squares = scipy.spatial.distance.cdist(test, samples, "sqeuclidean")
    means = []
    for sigma in np.logspace(-1, 0, 10):
        kernels = -squares / (2 * sigma**2) - 392 * np.log(2 * np.pi * sigma**2)
        means.append((scipy.special.logsumexp(kernels, axis=1) - np.log(len(samples))).mean())
    TARGET.write_text(json.dumps({"data_sha256": data.digest, "nats_per_image": means}, indent=2) + "\n")


if __name__ == "__main__":
    main()
