"""How grey digits become what a VAE's decoder is scored on. Three models; numbers under two of them never compare.

| model | x | a Bernoulli cross-entropy on it is |
|---|---|---|
| dynamic-binarised | in {0, 1}, drawn anew at each visit | a likelihood, and a random draw of the test set moves it |
| static-binarised | in {0, 1}, drawn once for all | a likelihood |
| real-valued | in [0, 1] | no likelihood: it has no normaliser and is not zero at a perfect reconstruction |

Salakhutdinov & Murray 2008 draw once; Burda et al. 2016 draw anew; many programs feed grey values and call it log p.
All three take uint8 images on the scale 0 .. 255, of any shape.
"""

import numpy as np
import torch
from torch import Tensor

from lib.datasets import fixed_random

OBSERVATION_MODELS = ("dynamic-binarised", "static-binarised", "real-valued")
_CHUNK = 1 << 22  # pixels at a time: some 100 MB of scratch memory; even, for a word serves two


def dynamic_binarisation(images: Tensor, generator: torch.Generator) -> Tensor:
    """A fresh draw x ~ Bernoulli(value / 255), float32 in {0., 1.}; `generator` lives on the images' device.

    Value 0 gives 0 and value 255 gives 1, always; between, the probability is right to 2**-16. It sits in the training
    loop, and drawing is what costs: 16 random bits a pixel, cut from 64-bit words, take a quarter of the time of
    `torch.bernoulli(images / 255)` (116 against 436 microseconds for 100 digits on one thread).
    """
    _require_bytes(images)
    count = images.numel()
    words = torch.empty((count + 3) // 4, dtype=torch.int64, device=images.device)
    words.random_(-(2**63), None, generator=generator)  # all 64 bits
    draws = words.view(torch.int16)[:count].view(images.shape)  # uniform on -32768 .. 32767
    thresholds = images.to(torch.int16).mul_(257).sub_(32768)  # 255 * 257 = 65535, so 255 becomes 32767 ...
    return draws.clamp_max_(32766).lt_(thresholds).float()  # ... which no draw reaches


def static_binarisation(images: Tensor, seed: int) -> Tensor:
    """THE draw of a seed, x ~ Bernoulli(value / 255), float32 in {0., 1.}, on the images' device.

    A pixel's draw is a function of the seed and its position in `images`, in integer arithmetic: the same bits on every
    machine and version, and the first k images get the same draw alone as among others. Binarise a split, not a batch.
    """
    _require_bytes(images)
    pixels = images.cpu().numpy().reshape(-1)
    ones = np.empty(pixels.shape, dtype=np.float32)
    bits = fixed_random.bits(fixed_random.STATIC_BINARISATION, seed)
    for start in range(0, pixels.size, _CHUNK):
        part = pixels[start : start + _CHUNK]
        words = bits.random_raw((part.size + 1) // 2).astype("<u8", copy=False).view("<u4")[: part.size]
        uniform = (words.astype(np.uint64) * np.uint64(255)) >> np.uint64(32)  # on 0 .. 254
        ones[start : start + _CHUNK] = uniform < part
    return torch.from_numpy(ones).view(images.shape).to(images.device)


def real_valued(images: Tensor) -> Tensor:
    """value / 255, float32 in [0, 1]. A Bernoulli cross-entropy on these is NOT a likelihood: never call it one."""
    _require_bytes(images)
    return images.float().div_(255)


def _require_bytes(images: Tensor) -> None:
    if images.dtype != torch.uint8:
        raise ValueError(f"images are uint8 on the scale 0 .. 255, not {images.dtype}")
