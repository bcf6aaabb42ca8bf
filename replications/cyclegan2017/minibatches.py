"""Unpaired minibatches: one domain shuffled without regard to the other, cropped and mirrored, in -1 .. 1."""

import torch
from torch import Tensor

from lib.errors import UserError
from lib.training.processes import ALONE, Processes
from lib.training.randomness import MinibatchOrder, Streams, stream_seed
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.domains import Domains


class Minibatches:
    """`minibatches(step)` -> a (B, C, S, S) and b, float32 in -1 .. 1, channels last; a function of seed and step.

    An epoch of a domain is one permutation of it; of a domain that batch does not divide, the last images are left out.
    paired: b's rows, crops and mirrorings are a's. Of several processes each gets its share of B.
    Raises UserError for domains that are smaller than a minibatch, and ValueError for images of another side than
    config says.
    """

    def __init__(
        self,
        config: TranslationConfig,
        domains: Domains,
        streams: Streams,
        paired: bool = False,
        processes: Processes = ALONE,
    ) -> None:
        self.config, self.streams, self.processes = config, streams, processes
        self.images = {"a": domains.a, "b": domains.b}
        self.paired = paired
        side = config.crop_from or config.side
        for name, images in self.images.items():
            if len(images) < config.batch:
                raise UserError(
                    f"Domain {name.upper()} has {len(images)} training images, which is less than one minibatch of "
                    f"{config.batch}: lower `batch` or add images."
                )
            if images.shape[2:] != (side, side):
                raise ValueError(f"images of {name} are {images.shape[2]} x {images.shape[3]}, not {side} x {side}")
        if paired and len(domains.a) != len(domains.b):
            raise ValueError(f"pairs need as many images of A as of B, not {len(domains.a)} and {len(domains.b)}")
        # NOTE cyclegan2017-N10: PyTorch draws B's image at random for each of A's; here B has epochs of its own.
        seeds = {"a": streams.seed, "b": streams.seed if paired else stream_seed(streams.seed, "order of b")}
        self.orders = {
            name: MinibatchOrder(seeds[name], len(images) // config.batch * config.batch, config.batch, images.device)
            for name, images in self.images.items()
        }

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        return self._of("a", step), self._of("b", step)

    def _of(self, name: str, step: int) -> Tensor:
        config, images, rows = self.config, self.images[name], self.orders[name](step)
        if config.crop_from or config.flip:
            rng = self.streams.at(f"crop {'a' if self.paired else name}", step)
            chance = torch.rand(3, len(rows), generator=rng, device=images.device)
            chance = self.processes.share(chance, dim=1)
            taken = crops(images, self.processes.share(rows), config.side, chance, config.flip)
        else:
            taken = images.index_select(0, self.processes.share(rows)).contiguous(memory_format=torch.channels_last)
        return taken.float().div_(127.5).sub_(1)


def crops(images: Tensor, rows: Tensor, side: int, chance: Tensor, flip: bool) -> Tensor:
    """A random side x side part of each of `rows`, mirrored left to right with chance 1/2 if `flip`; channels last.

    images: (N, C, H, W); rows: (B,); chance: (3, B) uniform in 0 .. 1, for the top, the left and the mirror.
    -> (B, C, side, side)
    """
    along = torch.arange(side, device=images.device)
    top, left = ((chance[i] * (images.shape[2 + i] - side + 1)).long() for i in range(2))
    ys, xs = top[:, None] + along, left[:, None] + along  # (B, side)
    if flip:
        xs = torch.where(chance[2, :, None] < 0.5, xs.flip(1), xs)
    return images[rows[:, None, None], :, ys[:, :, None], xs[:, None, :]].permute(0, 3, 1, 2)  # from (B, side, side, C)
