"""Train the network behind `scenes-fcn`: python -m lib.metrics.train_scenes_fcn --out PATH

Real renderings only, of seeds that nothing else uses: 10,000 and up to train on, 20,000 and up to score. One thread and
one seed give the same bytes again on the same kind of processor. The schedule is fixed and the last step is taken.
"""

import argparse
import sys
import time
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from lib.datasets.scenes import CLASSES, Scenes, scenes
from lib.files import write_atomically
from lib.metrics.scenes_fcn import ScenesNetwork, prepare
from lib.metrics.segmentation import SegmentationScores, confusion_matrix, segmentation_scores
from lib.training.randomness import generator, stream_seed

SEED_TRAIN, SEED_TEST = 10_000, 20_000
SIDES = (32, 64, 128)  # scenes of the i-th side have the seed SEED_TRAIN + i or SEED_TEST + i
N_TRAIN = (8000, 2500, 800)
N_TEST = 500
BATCHES = (64, 16, 4)  # equal numbers of pixels
TURNS = (0, 1, 0, 2)  # which side the steps take in turn
STEPS = 4500
LEARNING_RATE = 6e-3  # at its height, a quarter of the way; a one-cycle schedule of Adam
WEIGHT_DECAY = 1e-3


def batch(data: Scenes, size: int, seed: int, step: int) -> tuple[Tensor, Tensor]:
    """Photographs and labels drawn with replacement, each pair mirrored with chance 1/2."""
    draws = generator(seed, "scenes-fcn", step)
    chosen = torch.randint(len(data.labels), (size,), generator=draws)
    mirrored = torch.rand(size, generator=draws) < 0.5
    photographs, labels = prepare(data.photographs[chosen]), data.labels[chosen].long()
    photographs = torch.where(mirrored[:, None, None, None], photographs.flip(-1), photographs)
    return photographs, torch.where(mirrored[:, None, None], labels.flip(-1), labels)


def train(sets: list[Scenes], seed: int, steps: int = STEPS) -> ScenesNetwork:
    """The network after the last step, in eval mode. sets: scenes of each of SIDES."""
    with torch.random.fork_rng(devices=[]):  # initial weights draw from the global generator, set here
        torch.manual_seed(stream_seed(seed, "scenes-fcn"))
        network = ScenesNetwork().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=steps, pct_start=0.25)
    begun, total = time.monotonic(), 0.0
    for step in range(steps):
        which = TURNS[step % len(TURNS)]
        photographs, labels = batch(sets[which], BATCHES[which], seed, step)
        _, logits = network(photographs.contiguous(memory_format=torch.channels_last))
        loss = F.cross_entropy(logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        total += loss.item()
        if (step + 1) % 100 == 0 or step + 1 == steps:
            told = f"step {step + 1} of {steps}: loss {total / (step % 100 + 1):.4f}, {time.monotonic() - begun:.0f} s"
            print(told, file=sys.stderr, flush=True)
            total = 0.0
    return network.eval()


@torch.no_grad()
def score(network: ScenesNetwork, data: Scenes) -> SegmentationScores:
    """Pixel accuracy, class accuracy and class IoU on these scenes."""
    read = torch.cat([network(prepare(part))[1].argmax(1) for part in data.photographs.split(25)])
    return segmentation_scores(confusion_matrix(data.labels.long(), read, len(CLASSES)), absent="zero")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sizes = zip(N_TRAIN, SIDES, strict=True)
    network = train([scenes(n, side, SEED_TRAIN + i) for i, (n, side) in enumerate(sizes)], asked.seed, asked.steps)
    weights = {
        name: tensor.contiguous() for name, tensor in network.state_dict().items() if not name.endswith("_tracked")
    }
    digest = write_atomically(asked.out, safetensors.torch.save(weights))
    for i, side in enumerate(SIDES):
        found = score(network, scenes(N_TEST, side, SEED_TEST + i))
        print(f"{side} x {side}: " + ", ".join(f"{name} {value:.4f}" for name, value in found._asdict().items()))
    print(f"{asked.out}: {asked.out.stat().st_size:,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
