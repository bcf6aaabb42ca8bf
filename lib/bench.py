"""`regen bench lib`: the metrics and estimators beside their peers and their floors, in one run, as ratios.

A machine's speed moves by tens of per cent from one minute to the next, so only ratios of neighbouring measurements
count: work and peer take turns, and a ratio is the median over rounds. A peer that is not installed is left out.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from lib.datasets import load, real_valued
from lib.errors import UserError
from lib.likelihood import importance_weighted_bound, parzen_log_likelihood
from lib.metrics import (
    frechet_distance,
    frechet_distance_of_features,
    gaussian_stats,
    kernel_distance,
    precision_recall,
)
from lib.models.gaussian_vae import BernoulliVAE
from lib.timing import take_turns
from lib.transport import distances_between, optimal_assignment, sinkhorn

ROUNDS = 3


def measure() -> list[dict[str, Any]]:
    """A row a comparison: what was timed, seconds (medians), the ratio and its range over rounds, what is asked."""
    rows: list[dict[str, Any]] = []
    for part in (parzen, frechet, kernel_and_neighbours, transport, importance_weighted, extraction):
        rows.extend(part())
    return rows


def _row(
    work: str, peer: str, work_seconds: list[float], peer_seconds: list[float], asked: float | None, agreement: str
) -> dict[str, Any]:
    ratios = [theirs / ours for ours, theirs in zip(work_seconds, peer_seconds, strict=True)]
    return {
        "work": work,
        "peer": peer,
        "work_s": statistics.median(work_seconds),
        "peer_s": statistics.median(peer_seconds),
        "ratio": statistics.median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "asked": asked,
        "agreement": agreement,
    }


def _seconds(*works: Callable[[], Any], rounds: int = ROUNDS) -> list[list[float]]:
    """Wall seconds of each work, `rounds` times, in turns, after one untimed call each."""
    contenders = {str(place): work for place, work in enumerate(works)}
    return list(take_turns(contenders, rounds, repeats=1, warm_up=1).values())


def parzen() -> Iterator[dict[str, Any]]:
    """10,000 samples by 10,000 images of 784 pixels: beside the bare matrix product, and scikit-learn."""
    from sklearn.neighbors import KernelDensity

    generator, sigma = torch.Generator().manual_seed(0), 0.1668
    digits = real_valued(load("mnist-5k").images.flatten(1)).repeat(4, 1)
    noisy = digits + 0.05 * torch.randn(digits.shape, generator=generator)
    samples, data = noisy[:10_000].contiguous(), noisy[10_000:].contiguous()
    product = torch.empty(10_000, 10_000)
    part = data[:100].double()
    # One leaf: with more, its bounds go wrong in this many dimensions and the density with them, by hundreds of nats.
    kernel = KernelDensity(bandwidth=sigma, leaf_size=len(samples)).fit(samples.double().numpy())
    ours, bare, theirs = _seconds(
        lambda: parzen_log_likelihood(samples, data, sigma),
        lambda: torch.mm(data, samples.T, out=product),
        lambda: kernel.score_samples(part.numpy()),
    )
    found = parzen_log_likelihood(samples, data[:1000], sigma)
    exact = parzen_log_likelihood(samples.double(), data[:1000].double(), sigma)
    apart = (found - exact).abs().max().item()
    name = "Parzen, 10,000 x 10,000 x 784, float32"
    yield _row(name, "torch.mm of the same shape", ours, bare, 0.4, f"{apart:.1e} nats from float64")
    whole = [seconds * 100 for seconds in theirs]  # its cost is linear in the images
    apart = (exact[:100] - torch.from_numpy(kernel.score_samples(part.numpy()))).abs().max().item()
    yield _row(name, "sklearn KernelDensity, 100 images x 100", ours, whole, 20, f"{apart:.1e} nats in float64")


def frechet() -> Iterator[dict[str, Any]]:
    """Two Gaussians of 2,048 features, and 1,000 samples of each."""
    import numpy as np
    from scipy.linalg import sqrtm
    from torchmetrics.image.fid import _compute_fid

    x, y = (_spread(seed) for seed in (0, 1))
    a, b = gaussian_stats(x), gaussian_stats(y)
    few_x, few_y = x[:1000], y[:1000]
    ours, torchmetrics, scipy, few = _seconds(
        lambda: frechet_distance(a, b),
        lambda: _compute_fid(a.mean, a.cov, b.mean, b.cov),
        lambda: sqrtm((a.cov @ b.cov).numpy()),
        lambda: frechet_distance_of_features(few_x, few_y),
        rounds=2,
    )
    value = frechet_distance(a, b)
    name = "Fréchet distance, 2,048 features"
    apart = abs(_compute_fid(a.mean, a.cov, b.mean, b.cov).item() / value - 1)
    yield _row(name, "torchmetrics", ours, torchmetrics, 2, f"{apart:.1e} relative")
    root = float(np.trace(sqrtm((a.cov @ b.cov).numpy())).real)
    theirs = (a.mean - b.mean).square().sum().item() + (a.cov + b.cov).trace().item() - 2 * root
    yield _row(name, "scipy.linalg.sqrtm", ours, scipy, 6, f"{abs(theirs / value - 1):.1e} relative")
    small, large = (frechet_distance_of_features(few_x, few_y), frechet_distance(*map(gaussian_stats, (few_x, few_y))))
    yield _row("the same from 1,000 samples a side", name, few, ours, 4, f"{abs(small / large - 1):.1e} relative")


def _spread(seed: int) -> Tensor:
    """4,000 rows of 2,048 correlated features whose spread falls from 1 to 1e-3, as an extractor's does."""
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(2048, 2048, dtype=torch.float64, generator=generator))[0]
    scale = torch.logspace(0, -3, 2048, dtype=torch.float64)
    return torch.randn(4000, 2048, dtype=torch.float64, generator=generator) * scale @ basis


def kernel_and_neighbours() -> Iterator[dict[str, Any]]:
    """2,000 rows of 64 features a side, beside torch-fidelity and prdc."""
    try:
        from prdc import compute_prdc
        from torch_fidelity.metric_kid import kid_features_to_metric
        from torch_fidelity.metric_prc import prc_features_to_metric
    except ImportError:
        return
    x, y = (torch.randn(2000, 64, generator=torch.Generator().manual_seed(seed)) + seed / 10 for seed in (0, 1))
    whole = {"kid_subsets": 1, "kid_subset_size": len(x), "kid_kernel": "poly", "kid_degree": 3, "kid_gamma": None,
             "kid_coef0": 1, "rng_seed": 0, "verbose": False}  # fmt: skip
    ours, theirs = _seconds(lambda: kernel_distance(x, y), lambda: kid_features_to_metric(x, y, **whole))
    value, other = kernel_distance(x, y).value, kid_features_to_metric(x, y, **whole)["kernel_inception_distance_mean"]
    name = "kernel distance, 2,000 a side, 64 features"
    yield _row(name, "torch-fidelity, one subset of all", ours, theirs, None, f"{abs(other / value - 1):.1e} relative")
    options = {"prc_neighborhood": 3, "prc_batch_size": 10_000, "save_cpu_ram": False, "verbose": False}
    a, b = x.numpy(), y.numpy()
    ours, fidelity, prdc = _seconds(
        lambda: precision_recall(x, y),
        lambda: prc_features_to_metric(y, x, **options),
        lambda: compute_prdc(a, b, nearest_k=3),
    )
    found, theirs_of = precision_recall(x, y), prc_features_to_metric(y, x, **options)
    name = "precision and recall, 2,000 a side, 64 features"
    yield _row(name, "torch-fidelity", ours, fidelity, None, f"{abs(found.recall - theirs_of['recall']):.1e} apart")
    apart = abs(found.recall - compute_prdc(a, b, nearest_k=3)["recall"])
    yield _row(name, "prdc, density and coverage too", ours, prdc, None, f"{apart:.1e} apart")


def transport() -> Iterator[dict[str, Any]]:
    """Exact and entropic transport between two clouds in ten dimensions, beside POT."""
    try:
        import ot
    except ImportError:
        return
    import numpy as np

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(1000, 10)), draw.normal(size=(1000, 10)) + 0.5
    masses = np.full(1000, 1e-3)
    ours, theirs = _seconds(
        lambda: optimal_assignment(x, y), lambda: ot.emd2(masses, masses, ot.dist(x, y, metric="euclidean"))
    )
    apart = abs(ot.emd2(masses, masses, ot.dist(x, y, metric="euclidean")) / optimal_assignment(x, y).value - 1)
    yield _row("exact transport, 1,000 points a side", "POT emd2", ours, theirs, None, f"{apart:.1e} relative")
    few, cost = np.full(300, 1 / 300), distances_between(x[:300], y[:300])
    settings = {"method": "sinkhorn_log", "numItermax": 200, "stopThr": 0.0, "warn": False}
    ours, theirs = _seconds(
        lambda: sinkhorn(cost, few, few, 0.1, 200), lambda: ot.sinkhorn(few, few, cost, 0.1, **settings)
    )
    apart = np.abs(ot.sinkhorn(few, few, cost, 0.1, **settings) - sinkhorn(cost, few, few, 0.1, 200).plan).max()
    name = "Sinkhorn, 300 points a side, 200 steps in log space"
    yield _row(name, "POT sinkhorn_log", ours, theirs, None, f"plans {apart:.1e} apart")


def importance_weighted() -> Iterator[dict[str, Any]]:
    """5,000 importance samples an image, the paper's 500-unit network with 20 latents; pythae on the same weights."""
    generator, k = torch.Generator().manual_seed(0), 5000
    torch.manual_seed(0)
    model = BernoulliVAE(784, 500, 20)
    pixels = real_valued(load("mnist-5k").images.flatten(1))
    x = torch.bernoulli(pixels, generator=generator)
    # Seconds an image. Ours is linear in images and pythae goes through them one by one.
    works: list[Callable[[], Any]] = [lambda: importance_weighted_bound(model, x[:20], k, generator)]
    hidden, bias, weight = torch.rand(1000, 500), model.decoder_out.bias, model.decoder_out.weight
    out = torch.empty(1000, 784)

    @torch.no_grad()
    def products() -> None:
        for _ in range(20 * k // 1000):
            torch.addmm(bias, hidden, weight.T, out=out)

    works.append(products)
    theirs = _pythae(model)
    if theirs is not None:
        works.append(lambda: theirs.get_nll(x[:4], n_samples=k))
    taken = _seconds(*works)
    name = f"IWAE-{k:,}, 500-unit VAE, seconds an image"
    ours, bare = ([s / 20 for s in seconds] for seconds in taken[:2])
    yield _row(name, "the decoder's last matrix product alone", ours, bare, None, "")
    if theirs is not None:
        found, nll = importance_weighted_bound(model, x[:4], k, generator).mean().item(), theirs.get_nll(x[:4], k)
        yield _row(name, "pythae get_nll", ours, [s / 4 for s in taken[2]], 5, f"{abs(found - nll):.2f} nats apart")


def _pythae(model: BernoulliVAE) -> Any:
    """pythae's VAE with the modules of `model`, or None. It calls log p(x) by the name NLL."""
    try:
        from pythae.models import VAE, VAEConfig
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError:
        return None

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.first, self.last = model.encoder_in, model.encoder_out

        def forward(self, x: Tensor) -> Any:
            mean, logvar = self.last(torch.tanh(self.first(x))).chunk(2, dim=-1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            nn.Module.__init__(self)
            self.first, self.last = model.decoder_in, model.decoder_out

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=torch.sigmoid(self.last(torch.tanh(self.first(z)))))

    config = VAEConfig(input_dim=(784,), latent_dim=model.n_latent, reconstruction_loss="bce")
    theirs = VAE(config, Encoder(), Decoder()).eval()
    theirs.get_nll = torch.no_grad()(theirs.get_nll)  # as pythae's own example scripts call it
    return theirs


def extraction(images: int = 1000) -> Iterator[dict[str, Any]]:
    """Images through efficientnet-lite0 to a Frechet distance: beside the network's forward passes alone.

    A thousand images instead of ten thousand, which makes the fixed cost of the distance weigh ten times as much.
    """
    from lib.metrics import FrechetDistance, extractor

    try:
        network = extractor("efficientnet-lite0")
    except UserError:
        return
    pixels = torch.randint(0, 256, (images, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    reference = gaussian_stats(torch.randn(2000, network.n_features), network.protocol)
    ready = network.prepare(pixels[:50])

    def distance() -> None:
        metric = FrechetDistance(network, reference=reference)
        for batch in pixels.split(50):
            metric.update(batch, real=False)
        metric.compute()

    @torch.no_grad()
    def forward() -> None:
        for _ in range(images // 50):
            network.network(ready)

    ours, bare = _seconds(distance, forward, rounds=2)
    name = f"FID[efficientnet-lite0] of {images:,} images of 32 x 32"
    yield _row(name, "the network's forward passes", ours, bare, 1 / 1.2, "")
