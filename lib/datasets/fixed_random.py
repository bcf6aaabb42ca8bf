"""Random words that never change: with the library, the machine, or the calls made before.

Philox4x64 is a published counter-based generator (Salmon et al. 2011), and NumPy guarantees its raw stream for a given
key; it does not guarantee `Generator.permutation`, nor does PyTorch guarantee `randperm`, so neither is used here.
"""

import numpy as np
from numpy.typing import NDArray

PERMUTATION = 1
STATIC_BINARISATION = 2


def bits(stream: int, seed: int) -> np.random.Philox:
    """Call `random_raw(n)` for the next n uniform 64-bit words. seed: 0 .. 2**64 - 1."""
    if not 0 <= seed < 2**64:
        raise ValueError(f"a seed lies in 0 .. 2**64 - 1, not {seed}")
    return np.random.Philox(key=(stream << 64) | seed)


def permutation(count: int) -> NDArray[np.intp]:
    """THE order of a data set whose home sorts it by class: 0 .. count - 1, each sorted by its random word."""
    return np.argsort(bits(PERMUTATION, seed=0).random_raw(count), kind="stable")
