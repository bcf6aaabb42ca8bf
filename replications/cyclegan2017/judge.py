"""In place of table 1's people: a discriminator that no translator ever trained against, shown made photographs.

It was trained once (train_judge.py), on real renderings and on photographs made by trainings of a seed that no table
has, and ships with this project. NOTE cyclegan2017-N33.
"""

import hashlib
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib.errors import UserError
from lib.results import Score

FILE = Path(__file__).with_name("judge.safetensors")
SHA256 = "bcc38269c0ceb74e44e5b56ccfdd978c2a8b147d16261e28ec1191302b838d3a"
SIDE = 32
SEEN = 4  # pixels a side, NOTE cyclegan2017-N33
BATCH = 200


def glimpse(photographs: Tensor) -> Tensor:
    """What the judge sees: uint8 (N, 3, 32, 32) -> (N, 3, SEEN, SEEN) in -1 .. 1, means over squares."""
    return F.adaptive_avg_pool2d(photographs.float() / 127.5 - 1, SEEN)


def network() -> nn.Sequential:
    """Glimpses (N, 3, SEEN, SEEN) -> logit of "real" (N, 1)."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 3, 1, 1, bias=False), nn.BatchNorm2d(24), nn.LeakyReLU(0.2),
        nn.Conv2d(24, 48, 4, 2, 1, bias=False), nn.BatchNorm2d(48), nn.LeakyReLU(0.2),
        nn.Dropout(0.3), nn.Flatten(), nn.Linear(48 * (SEEN // 2) ** 2, 1),
    )  # fmt: skip


@lru_cache(maxsize=2)
def _judge(device: torch.device) -> nn.Module:
    content = FILE.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise UserError(f"{FILE} has the SHA-256 {found[:12]}, not {SHA256[:12]}: run `git checkout` on it.")
    judge = network()
    judge.load_state_dict(safetensors.torch.load(content), strict=False)  # all but the norms' counters of batches
    return judge.eval().to(device)


@torch.no_grad()
def called_real(photographs: Tensor) -> Tensor:
    """Whether the judge takes each photograph for real: uint8 (N, 3, 32, 32) -> bool (N,). Raises ValueError."""
    if photographs.shape[1:] != (3, SIDE, SIDE):
        raise ValueError(f"photographs is {tuple(photographs.shape)}: the judge takes (N, 3, {SIDE}, {SIDE})")
    judge = _judge(photographs.device)
    return torch.cat([judge(glimpse(part))[:, 0] > 0 for part in photographs.split(BATCH)])


def fooling(photographs: Tensor, protocol: dict[str, Any]) -> Score:
    """Share of photographs that the judge takes for real, 0 .. 1, with its binomial standard error."""
    share, n = called_real(photographs).double().mean().item(), len(photographs)
    made_by = {**protocol, "judge": SHA256, "real": "logit above 0", "stderr": "binomial"}
    return Score(share, math.sqrt(share * (1 - share) / n), "share", True, n, made_by)
