"""Sheets of images against torchvision's."""

import pytest
import torch
from torchvision.utils import make_grid

from lib.reporting.sheets import image_sheet


@pytest.mark.parametrize(("n", "columns", "padding"), [(12, 4, 1), (7, 3, 2), (4, 4, 0), (1, 1, 1)])
def test_equals_torchvisions_grid(n, columns, padding):
    images = torch.rand(n, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    ours = image_sheet(images, columns, padding, pad_value=0.5)
    theirs = make_grid(images, nrow=columns, padding=padding, pad_value=0.5)
    assert torch.equal(ours, theirs if n > 1 else torch.nn.functional.pad(theirs, (1, 1, 1, 1), value=0.5))
