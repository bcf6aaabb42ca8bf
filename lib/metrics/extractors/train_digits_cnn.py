"""Train the classifier behind `digits-cnn`: python -m lib.metrics.extractors.train_digits_cnn --out PATH

One thread and one seed give the same bytes again on the same kind of processor. The schedule is fixed and the last
epoch is taken; the official test images are scored once, at the end. A recipe is tried with --validate, which leaves
the 10,000 validation images out of the training and scores them instead.
"""

import argparse
import sys
import time
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from lib import datasets
from lib.errors import UserError
from lib.files import write_atomically
from lib.metrics.extractors.digits_cnn import DigitsNetwork
from lib.training.randomness import generator, stream_seed

EPOCHS = 20
BATCH = 125
LEARNING_RATE = 4e-3  # at its height, a quarter of the way; a one-cycle schedule of Adam
WEIGHT_DECAY = 1e-2
DEGREES, SHIFT, SCALE = 12.0, 2.0, 0.1  # augmentation: uniform within +- these; pixels, and a part of the size
SHEAR = 0.15


def unseen_by_mnist_5k(images: Tensor, data_dir: Path | None = None) -> Tensor:
    """Which of MNIST's images (N, 1, 28, 28) are byte for byte not in mnist-5k: bool (N,)."""
    kept_out = {image.numpy().tobytes() for image in datasets.load("mnist-5k", data_dir).images}
    return torch.tensor([image.numpy().tobytes() not in kept_out for image in images])


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image (N, 1, H, W) turned, sheared, scaled and shifted a little, bilinearly, zeros coming in."""
    turn, shear, scale_x, scale_y, shift_x, shift_y = torch.rand(6, len(images), generator=generator) * 2 - 1
    turn, shift = turn * torch.pi * DEGREES / 180, SHIFT * 2 / images.shape[-1]
    cos, sin = turn.cos(), turn.sin()
    shear, scale_x, scale_y = shear * SHEAR, 1 + scale_x * SCALE, 1 + scale_y * SCALE
    rows = (
        torch.stack([cos * scale_x, (shear * cos - sin) * scale_y, shift_x * shift], 1),
        torch.stack([sin * scale_x, (shear * sin + cos) * scale_y, shift_y * shift], 1),
    )
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def train(images: Tensor, labels: Tensor, seed: int, epochs: int = EPOCHS) -> DigitsNetwork:
    """The network after the last epoch, in eval mode. images: uint8 (N, 1, 28, 28); labels: (N,)."""
    with torch.random.fork_rng(devices=[]):  # initial weights and dropout draw from the global generator, set here
        torch.manual_seed(stream_seed(seed, "digits-cnn"))
        network, steps = DigitsNetwork().to(memory_format=torch.channels_last), len(images) // BATCH  # a third faster
        optimiser = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.25
        )
        begun = time.monotonic()
        for epoch in range(epochs):
            order, total = torch.randperm(len(images), generator=generator(seed, "order", epoch)), 0.0
            for step in range(steps):
                chosen = order[step * BATCH : (step + 1) * BATCH]
                warp = generator(seed, "augmentation", epoch * steps + step)
                inputs = augmented(images[chosen].float() / 255, warp).contiguous(memory_format=torch.channels_last)
                _, logits = network(inputs)
                loss = F.cross_entropy(logits, labels[chosen])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total += loss.item()
            told = f"epoch {epoch + 1} of {epochs}: training loss {total / steps:.4f}, {time.monotonic() - begun:.0f} s"
            print(told, file=sys.stderr, flush=True)
    return network.eval()


@torch.no_grad()
def accuracy(network: DigitsNetwork, images: Tensor, labels: Tensor) -> float:
    """Share of images whose largest logit is the right class, in 0..1."""
    guesses = torch.cat([network(part.float() / 255)[1].argmax(1) for part in images.split(500)])
    return (guesses == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--validate", action="store_true", help="hold the validation images out and score them")
    parser.add_argument("--data-dir", type=Path, help="data root (default: $REGEN_DATA, else the user's cache)")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    try:
        mnist = datasets.load("mnist", asked.data_dir)
        images, labels = mnist.images[:60_000], mnist.labels_of("train")
        labels = torch.cat([labels, mnist.labels_of("validation")])
        chosen = unseen_by_mnist_5k(images, asked.data_dir)
    except UserError as error:
        sys.exit(f"train_digits_cnn: {error}")
    if asked.validate:
        chosen[50_000:] = False
    split = "validation" if asked.validate else "test"
    network = train(images[chosen], labels[chosen], asked.seed, asked.epochs)
    score = accuracy(network, mnist.split(split)[0], mnist.labels_of(split))
    weights = {
        name: tensor.contiguous() for name, tensor in network.state_dict().items() if not name.endswith("_tracked")
    }
    digest = write_atomically(asked.out, safetensors.torch.save(weights))
    print(
        f"trained on {int(chosen.sum()):,} images; {score:.2%} of {len(mnist.labels_of(split)):,} {split} images right"
    )
    print(f"{asked.out}: {asked.out.stat().st_size:,} bytes, sha256 {digest}")


if __name__ == "__main__":
    main()
