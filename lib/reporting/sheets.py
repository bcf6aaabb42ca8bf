"""Many small images as one sheet."""

import torch
from torch import Tensor
from torch.nn import functional as F


def image_sheet(images: Tensor, columns: int, padding: int = 1, pad_value: float = 1.0) -> Tensor:
    """Images (N, C, H, W), row by row, as one image (C, R (H + p) + p, columns (W + p) + p); short last row padded.

    What torchvision.utils.make_grid does, without importing torchvision, which takes longer than drawing most figures.
    """
    n, channels, height, width = images.shape
    rows = -(-n // columns)
    cells = F.pad(images, (padding, 0, padding, 0), value=pad_value)  # a line on top and to the left of each
    blank = cells.new_full((rows * columns - n, *cells.shape[1:]), pad_value)
    cells = torch.cat([cells, blank]).view(rows, columns, channels, height + padding, width + padding)
    sheet = cells.permute(2, 0, 3, 1, 4).reshape(channels, rows * (height + padding), columns * (width + padding))
    return F.pad(sheet, (0, padding, 0, padding), value=pad_value)
