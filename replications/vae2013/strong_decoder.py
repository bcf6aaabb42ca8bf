"""A decoder so strong that it needs no latent: the bound stays good and z says nothing (posterior collapse).

Four decoders of the same digits, each for R models side by side along axis 0: `none`, an autoregressive network over
pixels without z, whose log p(x) is exact; `strong`, the same network given z; `free-bits`,
the strong one trained with free bits (Kingma et al. 2016); `weak`, pixels independent given z.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lib import datasets
from lib.checks import require_count
from lib.datasets import Dataset
from lib.datasets.observation import dynamic_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood
from lib.models.batched import BatchedLinear
from lib.models.flat import FlatParameters
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.results import Score, mean_score
from lib.training.optimizers import with_state
from lib.training.randomness import MinibatchOrder, Streams, generator, stream_seed
from replications.vae2013.evaluate import ACTIVE_VARIANCE

ACTIVE_KL = 0.01  # Sonderby et al. 2016
DECODERS = ("free-bits", "strong", "none", "weak")
N_CURVE_POINTS = 20
_ALIVE = 1 << 21  # decoded pixels alive at a time in evaluation


@dataclass(frozen=True)
class StrongDecoderConfig:
    """n_models models with one decoder; the paper of 2013 has none of it: DEVIATION vae2013-D42."""

    data: str  # ours
    decoder: str  # ours: none, strong, free-bits or weak
    n_steps: int  # ours
    pool: int = 2  # ours: each pixel the mean of pool x pool pixels; 2 makes 14 x 14 digits
    n_latent: int = 8  # ours
    n_hidden: int = 200  # ours, ReLU; of the encoder and of the weak decoder
    n_channels: int = 24  # ours, ReLU; of the autoregressive decoder's two hidden layers
    reach: int = 4  # ours: rows above and columns to either side that a pixel's logit sees
    free_bits: float = 0.0  # nats that the latents together may cost for nothing; Kingma et al. 2016
    n_models: int = 3  # side by side, in place of seeds
    batch: int = 50  # ours
    learning_rate: float = 3e-3  # ours, Adam
    n_draws: int = 8  # ours: draws of z behind the bounds, so also k of the importance-weighted one
    n_codes: int = 8  # ours: latents that the sheet holds fixed, those of the first test images
    n_repeats: int = 8  # ours: samples for each of them
    n_spread_codes: int = 200  # ours: draws of z from the prior behind the share of variance that z explains


def presets() -> dict[str, dict[str, StrongDecoderConfig]]:
    """Each preset's experiments of this module, the longest first."""
    sizes: dict[str, dict[str, Any]] = {
        "smoke": {"data": "mnist-5k", "n_steps": 4, "n_models": 2, "n_channels": 4, "n_hidden": 8, "reach": 2,
                  "n_draws": 2, "n_spread_codes": 4, "n_codes": 2, "n_repeats": 2},
        "laptop": {"data": "mnist-5k", "n_steps": 200},
        "paper": {"data": "mnist", "n_steps": 20_000, "n_channels": 64, "reach": 6, "learning_rate": 1e-3},
    }  # fmt: skip
    extra: dict[str, dict[str, Any]] = {decoder: {} for decoder in DECODERS} | {"free-bits": {"free_bits": 4.0}}
    return {
        preset: {f"decoder-{d}": StrongDecoderConfig(decoder=d, **size, **extra[d]) for d in DECODERS}
        for preset, size in sizes.items()
    }


def pooled(images: Tensor, pool: int) -> Tensor:
    """uint8 (N, H, W) as (N, (H / pool) (W / pool)) uint8, each pixel the rounded mean of pool x pool pixels."""
    small = F.avg_pool2d(images[:, None].float(), pool)
    return small.round().to(torch.uint8).flatten(1)


def causal_window(side: int, reach: int) -> Tensor:
    """Which pixels a logit sees: (D, T) places in the image in raster order, D = side^2; D itself stands for outside.

    The `reach` rows above, `reach` columns to either side, and the `reach` pixels to the left: T = 2 reach (reach + 1).
    """
    place = torch.arange(side)
    steps = [(dy, dx) for dy in range(-reach, 1) for dx in range(-reach, reach + 1) if (dy, dx) < (0, 0)]
    dy, dx = torch.tensor(steps).T
    y, x = (place[:, None] + d for d in (dy, dx))  # (side, T) each
    y, x = (each.expand(side, side, -1) for each in (y[:, None], x[None]))  # (side, side, T): rows, columns
    inside = (y >= 0) & (x >= 0) & (x < side)
    return torch.where(inside, y * side + x, side**2).flatten(0, 1)


class Decoder(nn.Module):
    """Log odds of each pixel, from `z` (R, B, Z) and, autoregressive, from the pixels before it.

    Weak: logits = V relu(U z + b) + c. Autoregressive: one network with two hidden layers for every pixel, that sees a
    causal window around it, the place by biases of its own, and z, which reaches the first hidden layer.
    """

    window: Tensor

    def __init__(self, config: StrongDecoderConfig, n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        r, h = config.n_models, config.n_hidden
        self.autoregressive, self.given_z = config.decoder != "weak", config.decoder != "none"
        if not self.autoregressive:
            self.of_z, self.out = BatchedLinear(r, config.n_latent, h, rng), BatchedLinear(r, h, n_pixels, rng)
            return
        window, c = causal_window(math.isqrt(n_pixels), config.reach), config.n_channels
        self.register_buffer("window", window, persistent=False)
        self.of_window, self.middle = BatchedLinear(r, window.shape[1], c, rng), BatchedLinear(r, c, c, rng)
        self.out = BatchedLinear(r, c, 1, rng)
        self.place = nn.Parameter(torch.zeros(r, 1, n_pixels, c))
        self.place_out = nn.Parameter(torch.zeros(r, 1, n_pixels))
        if self.given_z:
            self.of_z = BatchedLinear(r, config.n_latent, c, rng)

    def forward(self, x: Tensor, z: Tensor | None, places: slice = slice(None)) -> Tensor:
        """x: (R, B, D); z: (R, S B, Z), S draws of the B images in turn, or None. Returns (R, S B, places)."""
        if not self.autoregressive:
            return self.out(torch.relu(self.of_z(z)))[..., places]  # (R, S B, D)
        seen = F.pad(x, (0, 1))[..., self.window[places]]  # (R, B, D, T): outside the image is 0
        h = self.of_window(seen.flatten(1, 2)).unflatten(1, seen.shape[1:3]) + self.place[:, :, places]  # (R, B, D, C)
        if z is not None:
            # What the pixels say is the same for all draws of an image.
            h = h.repeat(1, z.shape[1] // x.shape[1], 1, 1) + self.of_z(z).unsqueeze(2)  # (R, S B, D, C)
        deep = torch.relu(self.middle(torch.relu(h).flatten(1, 2)))  # (R, S B D, C)
        return self.out(deep).view(h.shape[:3]) + self.place_out[..., places]  # (R, S B, D)


class DigitModel(nn.Module):
    """An encoder q(z|x) with one hidden layer, and a decoder; without z the decoder is all there is."""

    observation = "bernoulli"

    def __init__(self, config: StrongDecoderConfig, n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        if config.decoder not in DECODERS:
            raise ValueError(f"the decoder is {config.decoder!r}: there are {', '.join(DECODERS)}")
        self.n_models, self.n_latent, self.n_pixels = config.n_models, config.n_latent, n_pixels
        self.decoder = Decoder(config, n_pixels, rng)
        if self.decoder.given_z:
            self.encoder = nn.Sequential(
                BatchedLinear(config.n_models, n_pixels, config.n_hidden, rng),
                nn.ReLU(),
                BatchedLinear(config.n_models, config.n_hidden, 2 * config.n_latent, rng),
            )

    def posterior(self, x: Tensor) -> Gaussian:
        """x: (R, B, D) -> mean and log variance (R, B, Z)."""
        return Gaussian(*self.encoder(x).chunk(2, dim=-1))

    def log_likelihood(self, x: Tensor, z: Tensor | None) -> Tensor:
        """log p(x|z) in nats: x (R, B, D), z (R, S B, Z), S draws of the B images in turn, or None -> (R, S B)."""
        shown = x if z is None else x.repeat(1, z.shape[1] // x.shape[1], 1)
        return bernoulli_log_likelihood(shown, self.decoder(x, z))


def kl_of_units(q: Gaussian) -> Tensor:
    """KL(q || N(0, 1)) of each unit in nats, appendix B: (R, B, Z)."""
    return 0.5 * (q.mean.square() + torch.exp(q.logvar) - 1.0 - q.logvar)


def objective(model: DigitModel, x: Tensor, noise: Tensor, free_bits: float) -> tuple[Tensor, Tensor, Tensor]:
    """What is maximised, summed over models, (); beside it log p(x|z) and the KL, means over the minibatch, (R,) each.

    x: (R, B, D); noise: (R, B, Z). The bound, or with free bits the bound with max(free_bits, KL) for its KL.
    """
    if not model.decoder.given_z:
        log_likelihood = model.log_likelihood(x, None).mean(1)  # (R,)
        return log_likelihood.sum(), log_likelihood, torch.zeros_like(log_likelihood)
    q = model.posterior(x)
    log_likelihood = model.log_likelihood(x, q.sample(noise)).mean(1)
    kl = kl_of_units(q).sum(-1).mean(1)  # (R,)
    return (log_likelihood - kl.clamp_min(free_bits)).sum(), log_likelihood, kl


def strong_decoder(config: StrongDecoderConfig, workspace: Workspace) -> Outcome:
    """Train config.n_models models side by side and measure them; goes on from the workspace's checkpoint."""
    data, streams = datasets.load(config.data), workspace.streams
    images = pooled(data.split("train")[0].flatten(1).view(-1, 28, 28), config.pool).to(workspace.device)
    model = DigitModel(config, images.shape[1], generator(streams.seed, "init")).to(workspace.device)
    flat = FlatParameters(model)
    optimizer = with_state(torch.optim.Adam([flat.vector], config.learning_rate, fused=True))
    seeds = [stream_seed(streams.seed, "order of model", r) for r in range(config.n_models)]
    orders = [MinibatchOrder(seed, len(images), config.batch, workspace.device) for seed in seeds]
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer}
    state = workspace.resume_(**parts)
    due = {1, *(math.ceil(config.n_steps * (i + 1) / N_CURVE_POINTS) for i in range(N_CURVE_POINTS))}
    for step in range(state["step"], config.n_steps):
        chosen = torch.stack([order(step) for order in orders])  # (R, B): each model has an order of its own
        x = dynamic_binarisation(images.index_select(0, chosen.flatten()), streams.at("binarise", step))
        shape = (*chosen.shape, config.n_latent)
        noise = torch.randn(shape, generator=streams.at("latent", step), device=workspace.device)
        value, log_likelihood, kl = objective(model, x.view(*chosen.shape, -1), noise, config.free_bits)
        flat.take_gradient(-value)
        optimizer.step()
        state["step"] = step + 1
        if step + 1 in due:
            bound, cost = (log_likelihood - kl).mean().item(), kl.mean().item()
            state["history"].append({"step": step + 1, "elbo": bound, "kl": cost})
            require_finite(bound, "The bound on a minibatch", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    test = test_images(data, config.pool).to(workspace.device)
    found = evaluate(model, test, config, streams)
    kept = {**model.state_dict(), "fixed_z": samples_of_codes(model, test, config, streams)}
    facts = {"parameters": len(flat.vector) // config.n_models, **{k: v.tolist() for k, v in found.items()}}
    return Outcome(scores(found, config, data), state["history"], kept, facts=facts)


def test_images(data: Dataset, pool: int) -> Tensor:
    """The test images, pooled and then binarised by one draw that no run's seed moves: (N, D) in {0, 1}."""
    images = pooled(data.split("test")[0].flatten(1).view(-1, 28, 28), pool)
    return dynamic_binarisation(images, generator(0, f"evaluation {data.digest} test pooled by {pool}"))


test_images.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever its name


@torch.no_grad()
def evaluate(model: DigitModel, x: Tensor, config: StrongDecoderConfig, streams: Streams) -> dict[str, Tensor]:
    """Each measure of each model, (R,) float64 on the CPU, of x (N, D); the plain bound, whatever was maximised.

    elbo, iwae: nats; of the decoder without z both are log p(x). prior_z: E log p(x | z) with z drawn from the prior in
    place of the posterior; used: how much less that is than with z from q. kl, units_kl, units_variance: see scores.
    explained: share of the variance of samples that z explains.
    """
    r = model.n_models
    if not model.decoder.given_z:
        exact = torch.cat([model.log_likelihood(b.expand(r, -1, -1), None) for b in x.split(2000)], 1).double().mean(1)
        zero = torch.zeros_like(exact)
        found = {"elbo": exact, "iwae": exact, "prior_z": exact, "used": zero, "kl": zero, "units_kl": zero,
                 "units_variance": zero}  # fmt: skip
        return {name: values.cpu() for name, values in found.items()}
    draws, rows = config.n_draws, []
    rng, rng_prior = streams.at("test"), streams.at("prior z")
    for block in x.split(max(1, _ALIVE // (r * draws * model.n_pixels))):
        shown = block.expand(r, -1, -1)
        q = model.posterior(shown)
        many = Gaussian(*(part.repeat(1, draws, 1) for part in q))  # (R, S b, Z)
        z = many.sample(_normal(many.mean.shape, rng))
        of_q = model.log_likelihood(shown, z)  # (R, S b)
        of_prior = model.log_likelihood(shown, _normal(z.shape, rng_prior))
        weight = (of_q + standard_normal_log_prob(z) - many.log_prob(z)).double().unflatten(1, (draws, -1))
        means = [each.double().unflatten(1, (draws, -1)).mean(1) for each in (of_q, of_prior)]
        rows.append((weight.logsumexp(1) - math.log(draws), *means, kl_of_units(q).double(), q.mean.double()))
    iwae, of_q, of_prior, kl, mean = (torch.cat(parts, 1) for parts in zip(*rows, strict=True))
    kl = kl.mean(1)  # (R, Z)
    found = {
        "elbo": of_q.mean(1) - kl.sum(1), "iwae": iwae.mean(1), "prior_z": of_prior.mean(1),
        "used": (of_q - of_prior).mean(1), "kl": kl.sum(1), "units_kl": (kl > ACTIVE_KL).sum(1).double(),
        "units_variance": (mean.var(1) > ACTIVE_VARIANCE).sum(1).double(),
        "explained": explained(model, config, streams),
    }  # fmt: skip
    return {name: values.cpu() for name, values in found.items()}


def _normal(shape: torch.Size | tuple[int, ...], rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


@torch.no_grad()
def sampled(model: DigitModel, z: Tensor | None, n: int, rng: torch.Generator) -> Tensor:
    """x ~ p(x | z), pixel after pixel for an autoregressive decoder: (R, B, Z), or None and n images -> (R, B, D)."""
    uniform = torch.rand(model.n_models, n if z is None else z.shape[1], model.n_pixels, generator=rng,
                         device=rng.device)  # fmt: skip
    x = torch.zeros_like(uniform)
    if not model.decoder.autoregressive:
        return (uniform < torch.sigmoid(model.decoder(x, z))).float()
    for pixel in range(model.n_pixels):
        here = slice(pixel, pixel + 1)
        x[..., here] = (uniform[..., here] < torch.sigmoid(model.decoder(x, z, here))).float()
    return x


def samples_of_codes(model: DigitModel, x: Tensor, config: StrongDecoderConfig, streams: Streams) -> Tensor:
    """The first model's samples with z fixed: (codes, 1 + repeats, D) uint8, the test image that z is of first.

    z is one draw of q(z | x) an image. Without z the rows are samples alone, all from the same distribution.
    """
    require_count("n_codes", config.n_codes, 1, len(x))
    shown, rng = x[: config.n_codes].expand(model.n_models, -1, -1), streams.at("fixed z")
    z = None
    if model.decoder.given_z:
        with torch.no_grad():
            q = model.posterior(shown)
        z = q.sample(_normal(q.mean.shape, rng)).repeat_interleave(config.n_repeats, 1)
    made = sampled(model, z, config.n_codes * config.n_repeats, rng)[0].unflatten(0, (config.n_codes, -1))
    return torch.cat([shown[0][:, None], made], 1).to(torch.uint8)


def explained(model: DigitModel, config: StrongDecoderConfig, streams: Streams) -> Tensor:
    """Var_z(E[x | z]) / Var(x), each summed over pixels: the share of the variance of samples that z explains, (R,).

    From pairs of samples that share a z drawn from the prior: their covariance over z is Var_z(E[x | z]) without bias,
    so the share may come out a little below 0. 1 where z settles the image, 0 where it says nothing.
    """
    z = _normal((model.n_models, config.n_spread_codes, model.n_latent), streams.at("spread z"))
    pairs = sampled(model, z.repeat(1, 2, 1), 0, streams.at("spread x")).double()
    a, b = (pairs - pairs.mean(1, keepdim=True)).chunk(2, 1)  # (R, K, D)
    return 2 * (a * b).sum((1, 2)) / (a.square() + b.square()).sum((1, 2))


def scores(found: dict[str, Tensor], config: StrongDecoderConfig, data: Dataset) -> dict[str, Score]:
    """Means over models with their standard errors."""
    side = 28 // config.pool
    protocol: dict[str, Any] = {
        "averaged_over": "models", "data": data.name, "data_sha256": data.digest, "split": "test",
        "observation": f"pooled to {side} x {side}, dynamic-binarised, one fixed draw for evaluation",
        "decoder": config.decoder, "free_bits": config.free_bits, "n_latent": config.n_latent,
        "steps": config.n_steps, "batch": config.batch, "draws": config.n_draws,
    }  # fmt: skip
    exact = {**protocol, "estimator": "exact log-likelihood", "draws": 0}
    with_z = config.decoder != "none"
    rows: dict[str, tuple[str, bool, dict[str, Any]]] = {
        "elbo": ("nats/image", True, {**protocol, "estimator": "elbo"} if with_z else exact),
        "iwae": ("nats/image", True, {**protocol, "estimator": "importance-weighted bound"} if with_z else exact),
        "prior_z": ("nats/image", True, {**protocol, "z": "a prior draw in place of the posterior's"}),
        "used": ("nats/image", True, {**protocol, "z": "log p(x|z), z from q, minus the same, z from the prior"}),
        "kl": ("nats/image", True, protocol),
        "units_kl": ("units", True, {**protocol, "rule": f"KL of the unit, mean over images > {ACTIVE_KL}"}),
        "units_variance": ("units", True, {**protocol, "rule": f"variance of the posterior mean > {ACTIVE_VARIANCE}"}),
        "explained": ("share", True, {**protocol, "z": f"{config.n_spread_codes} prior draws, two samples of each"}),
    }
    return {name: mean_score(found[name], *rows[name]) for name in found}
