"""The largest piece against PyTorch's own maximum, values and gradients; and what it does where pieces are equal."""

import torch

from lib.models.maxout import largest_piece


def test_values_and_gradients_are_those_of_the_maximum():
    x = torch.randn(3, 7, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    ours, theirs = largest_piece(x), x.max(-2).values
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (ours, theirs)]
    assert torch.equal(*gradients)


def test_equal_pieces_each_get_the_whole_gradient():
    x = torch.tensor([[1.0, 2.0], [1.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(largest_piece(x).sum(), x)
    assert gradient.tolist() == [[1.0, 1.0], [1.0, 0.0]]
