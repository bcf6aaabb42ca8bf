"""The convolution by tiles against PyTorch's own: values, gradients, borders, precision, refusals."""

import pytest
import torch
from torch.nn import functional as F

from lib.models import winograd
from lib.models.winograd import reflected_conv3


def drawn(n=2, n_in=5, n_out=7, height=8, width=12, dtype=torch.float64):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, n_in, height, width, generator=g, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(shape, generator=g, dtype=dtype) for shape in ((n_out, n_in, 3, 3), (n_out,)))
    return [t.requires_grad_() for t in (x, weight, bias)]


def direct(x, weight, bias):
    return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), weight, bias)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (8, 12), (16, 4)])
@pytest.mark.parametrize("onednn", [True, False])
def test_values_and_all_three_gradients_are_pytorchs(height, width, onednn, monkeypatch):
    """In single precision where oneDNN multiplies, in double where it cannot."""
    if not onednn:
        monkeypatch.setattr(winograd, "_ONEDNN", None)
    dtype, tolerance = (torch.float32, 2e-4) if onednn else (torch.float64, 1e-10)
    leaves = drawn(height=height, width=width, dtype=dtype)
    ours, theirs = reflected_conv3(*leaves), direct(*leaves)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    weights = torch.randn(theirs.shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), leaves), torch.autograd.grad((theirs * weights).sum(), leaves),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(a, b, rtol=tolerance, atol=10 * tolerance)


def test_single_precision_is_within_ten_times_the_direct_sums_error():
    """Relative to double precision, in the norm of the output: Lavin and Gray find about 3 times."""
    exact = drawn(1, 64, 64, 16, 16)
    single = [t.detach().float() for t in exact]
    with torch.no_grad():
        want = direct(*exact)
        ours, theirs = ((f(*single).double() - want).norm() / want.norm() for f in (reflected_conv3, direct))
    assert theirs < ours < 10 * theirs + 1e-6
    assert ours < 1e-5


def test_only_the_gradients_asked_for_are_made():
    x, weight, bias = drawn()
    y = reflected_conv3(x.detach(), weight, bias.detach())
    (found,) = torch.autograd.grad(y.sum(), weight)
    (want,) = torch.autograd.grad(direct(x.detach(), weight, bias.detach()).sum(), weight)
    torch.testing.assert_close(found, want)


def test_maps_and_kernels_that_do_not_fit_are_refused():
    x, weight, bias = drawn(height=6)
    with pytest.raises(ValueError, match="maps are 6 x 12: tiles of 4 x 4 do not cover them"):
        reflected_conv3(x, weight, bias)
    with pytest.raises(ValueError, match="kernel is 2 x 3"):
        reflected_conv3(drawn()[0], weight[:, :, :2], bias)
