"""The pool of generated images that the discriminators are shown (section 4; Shrivastava et al. 2017)."""

import torch
from torch import Tensor, nn

from lib.checks import require_count


class ImagePool(nn.Module):
    """The authors' ImagePool, image by image: while it is not full, an image is stored and comes back; afterwards, with
    chance 1/2, the image takes the place of a random stored one, which comes back, and else it comes back itself.

    A module, so that a checkpoint holds its images. size 0 hands every image back.
    """

    images: Tensor  # (size, C, H, W)
    count: Tensor  # (), int64: how many are stored

    def __init__(self, size: int, image: tuple[int, ...], device: torch.device | str = "cpu") -> None:
        super().__init__()
        require_count("size", size, 0)
        self.size = size
        # NOTE cyclegan2017-N8: the code keeps images one by one, also where a minibatch has several, and detached.
        self.register_buffer("images", torch.zeros(size, *image, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))

    def draw(self, n: int, rng: torch.Generator) -> Tensor:
        """The chance of n images: (2, n) uniform in 0 .. 1, the first for `whether`, the second for `which`."""
        return torch.rand(2, n, generator=rng, device=self.images.device)

    @torch.no_grad()
    def forward(self, new: Tensor, chance: Tensor) -> Tensor:
        """new (n, C, H, W) and chance (2, n) by draw -> (n, C, H, W), detached.

        All n at once, and the same as one after the other: an image that an earlier one of the same minibatch would
        have found in its place is that one. Never waits for the device.
        """
        new, n = new.detach(), len(new)
        if not self.size:
            return new
        filling = self.count + torch.arange(n, device=new.device)
        fills = filling < self.size  # (n,)
        slot = torch.where(fills, filling, (chance[1] * self.size).long())
        swaps = ~fills & (chance[0] > 0.5)
        # writer (n, n): 1 + j where image j of the minibatch is written to the slot of image i, else 0
        written = (slot[:, None] == slot) & (fills | swaps)
        writer = written * torch.arange(1, n + 1, device=new.device)
        stored = self.images.index_select(0, slot)
        last, earlier = (self._latest(of, new, stored) for of in (writer, writer.tril(-1)))
        self.images.index_copy_(0, slot, last)  # where a slot stands twice, both write the same
        self.count.copy_((self.count + n).clamp(max=self.size))
        return torch.where(swaps.view(-1, 1, 1, 1), earlier, new)

    @staticmethod
    def _latest(writer: Tensor, new: Tensor, stored: Tensor) -> Tensor:
        """For each image, new[j] of its largest writer 1 + j; where it has none, its stored image."""
        last = writer.amax(1)  # (n,)
        return torch.where((last > 0).view(-1, 1, 1, 1), new.index_select(0, (last - 1).clamp(min=0)), stored)
