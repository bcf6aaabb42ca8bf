"""Appendix F: a distribution over the decoder's parameters theta too, q(theta) = N(mean, diag), with its own bound.

Equation 24 bounds log p(X) of the whole data set, all theta counted in: N times the mean over a minibatch of
log p(x|z, theta) + log p(z) - log q(z|x), plus log p(theta) - log q(theta), with theta and z drawn from q. It is held
against a linear-Gaussian model whose evidence is known, and then trained on a few digits beside MAP.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib.datasets import Dataset
from lib.datasets.observation import static_binarisation
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.elbo import bernoulli_log_likelihood, kl_to_standard_normal
from lib.models.activations import tanh
from lib.models.batched import BatchedLinear
from lib.models.gaussian_vae import Gaussian, standard_normal_log_prob
from lib.results import Score, mean_score
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.randomness import Streams, generator
from replications.vae2013.evaluate import ACTIVE_VARIANCE


@dataclass(frozen=True)
class ConjugateConfig:
    """x_n = B theta + W z_n + noise, all Gaussian: the evidence is known; DEVIATION vae2013-D53."""

    n_points: int = 20  # ours: N
    n_observed: int = 6  # ours
    n_parameters: int = 2  # ours: entries of theta
    n_latent: int = 2  # ours: entries of each z_n
    noise_variance: float = 0.5  # ours
    batch: int = 5  # ours: M, so that the factor N / M is used
    n_repeats: int = 100_000  # ours: estimates behind each mean


@dataclass(frozen=True)
class FullBayesConfig:
    """A small VAE on few digits, by appendix F and by MAP, models of both side by side; DEVIATION vae2013-D54."""

    data: str  # ours: UCI's digits
    n_train: int  # ours: few, so that what is not known of theta matters
    n_steps: int = 1500  # ours
    n_models: int = 3  # ours: of each kind
    n_latent: int = 3  # figure 3's N_z
    n_hidden: int = 20  # ours; section 5 has 500
    batch: int = 100  # section 5, M
    learning_rate: float = 0.01  # ours, Adam
    init_logvar: float = -6.0  # ours: of q(theta) at the start
    n_parameter_draws: int = 10  # ours: draws of theta behind each final bound
    n_elbo_draws: int = 4  # ours: draws of z an image for each of them


def whole_bound(n_points: int, per_point: Tensor, parameters: Tensor) -> Tensor:
    """Equation 24 for each draw of theta: (S, M) terms of points and (S,) of theta -> (S,), nats for the whole set."""
    return n_points * per_point.mean(-1) + parameters


# --- where the evidence is known ---------------------------------------------------------------------------------


class Conjugate(NamedTuple):
    """theta ~ N(0, I_P), z_n ~ N(0, I_K), x_n ~ N(B theta + W z_n, s2 I_D); b: (D, P), w: (D, K)."""

    b: Tensor
    w: Tensor
    noise_variance: float

    def log_likelihood(self, x: Tensor, theta: Tensor, z: Tensor) -> Tensor:
        """log p(x|z, theta): (..., M, D), (S, P), (S, M, K) -> (S, M)."""
        square = (x - (theta @ self.b.T).unsqueeze(1) - z @ self.w.T).square() / self.noise_variance
        return -0.5 * (square + math.log(2 * math.pi * self.noise_variance)).sum(-1)

    def evidence(self, x: Tensor) -> float:
        """log p(X), exact, from the covariance of all N D numbers: it knows of no posterior. x: (N, D)."""
        n, d = x.shape
        eye = torch.eye(n, dtype=x.dtype)
        own = self.w @ self.w.T + self.noise_variance * torch.eye(d, dtype=x.dtype)
        covariance = torch.kron(torch.ones_like(eye), self.b @ self.b.T) + torch.kron(eye, own)
        law = torch.distributions.MultivariateNormal(torch.zeros(n * d, dtype=x.dtype), covariance)
        return law.log_prob(x.flatten()).item()

    def precision(self, n: int) -> Tensor:
        """Of the posterior of (theta, z_1 .. z_n) together: (P + n K, P + n K)."""
        (p, k), s2 = (self.b.shape[1], self.w.shape[1]), self.noise_variance
        loading = torch.cat([self.b.repeat(n, 1), torch.kron(torch.eye(n, dtype=self.w.dtype), self.w)], 1)
        return torch.eye(p + n * k, dtype=self.w.dtype) + loading.T @ loading / s2

    def best(self, x: Tensor) -> tuple[Gaussian, Gaussian]:
        """The diagonal q(theta), (P,), and q(z_n|x_n), (N, K), nearest the posterior in KL(q || p): its mean, and for
        variances 1 over the diagonal of its precision; q(z|x)'s mean is affine in x and the same for every n."""
        n, p = len(x), self.b.shape[1]
        precision = self.precision(n)
        pull = torch.cat([self.b.T @ x.sum(0), (x @ self.w).flatten()]) / self.noise_variance
        mean, logvar = torch.linalg.solve(precision, pull), -precision.diagonal().log()
        return Gaussian(mean[:p], logvar[:p]), Gaussian(mean[p:].view(n, -1), logvar[p:].view(n, -1))

    def exact_bound(self, x: Tensor, q_theta: Gaussian, q_z: Gaussian) -> float:
        """E_q of equation 24's terms in closed form: the value at the means less what q's spread adds."""
        at_means = self.log_likelihood(x, q_theta.mean[None], q_z.mean[None]).sum()
        spread = (
            len(x) * (self.b.square().sum(0) @ q_theta.logvar.exp()) + (q_z.logvar.exp() @ self.w.square().sum(0)).sum()
        )
        apart = kl_to_standard_normal(*q_theta) + kl_to_standard_normal(*q_z).sum()
        return (at_means - 0.5 * spread / self.noise_variance - apart).item()


def conjugate_estimates(
    model: Conjugate, x: Tensor, q: tuple[Gaussian, Gaussian], batch: int, n: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """n estimates of the bound by equation 24, all sampled, and by F.1 with both divergences in closed form; (n,) each.

    One theta and one minibatch of `batch` different points an estimate.
    """
    q_theta, q_z = q
    index = torch.rand(n, len(x), generator=rng).argsort(1)[:, :batch]  # (n, M)
    theta = q_theta.sample(torch.randn(n, len(q_theta.mean), dtype=x.dtype, generator=rng))  # (n, P)
    of_batch = Gaussian(q_z.mean[index], q_z.logvar[index])  # (n, M, K)
    z = of_batch.sample(torch.randn(of_batch.mean.shape, dtype=x.dtype, generator=rng))
    likelihood = model.log_likelihood(x[index], theta, z)  # (n, M)
    sampled = likelihood + standard_normal_log_prob(z) - of_batch.log_prob(z)
    of_theta = standard_normal_log_prob(theta) - q_theta.log_prob(theta)  # (n,)
    closed = likelihood - kl_to_standard_normal(*of_batch)
    return (
        whole_bound(len(x), sampled, of_theta),
        whole_bound(len(x), closed, -kl_to_standard_normal(*q_theta).expand(n)),
    )


def conjugate_models(config: ConjugateConfig) -> dict[str, Conjugate]:
    """Two of them, the same for every seed.

    "shared": theta and z move x in common directions, so the posterior is no product. "apart": they do not, all columns
    are orthogonal, and the posterior is a diagonal Gaussian.
    """
    shape = (config.n_observed, config.n_parameters + config.n_latent)
    loadings = torch.randn(shape, dtype=torch.float64, generator=generator(0, "conjugate model"))
    lengths = loadings.norm(dim=0)
    found = {"shared": loadings, "apart": torch.linalg.qr(loadings)[0] * lengths}
    theta, z, s2 = slice(config.n_parameters), slice(config.n_parameters, None), config.noise_variance
    return {name: Conjugate(each[:, theta].contiguous(), each[:, z].contiguous(), s2) for name, each in found.items()}


def conjugate(config: ConjugateConfig, workspace: Workspace) -> Outcome:
    """Equation 24 against the exact bound and the exact evidence. In float64, on the CPU always."""
    streams = Streams(workspace.streams.seed)
    scores: dict[str, Score] = {}
    for name, model in conjugate_models(config).items():
        n, d = config.n_points, config.n_observed
        rng = streams.at(f"points {name}")
        theta = torch.randn(1, config.n_parameters, dtype=torch.float64, generator=rng)
        z, e = (torch.randn(n, k, dtype=torch.float64, generator=rng) for k in (config.n_latent, d))
        x = theta @ model.b.T + z @ model.w.T + math.sqrt(config.noise_variance) * e
        q, precision = model.best(x), model.precision(n)
        evidence, bound = model.evidence(x), model.exact_bound(x, *q)
        protocol = {"model": name, "x": n, "observed": d, "parameters": config.n_parameters,
                    "latents": config.n_latent, "s2": config.noise_variance, "data": "one set"}  # fmt: skip
        formula = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision)).item()
        estimates = conjugate_estimates(model, x, q, config.batch, config.n_repeats, streams.at(f"draws {name}"))
        sampling = {**protocol, "batch": config.batch, "estimates": config.n_repeats}
        whole, _ = conjugate_estimates(model, x, q, n, 1000, streams.at(f"whole {name}"))
        scores |= {
            f"evidence_{name}": Score(evidence, math.nan, "nats/set", True, 1, protocol),
            f"gap_{name}": Score(evidence - bound, math.nan, "nats/set", False, 1, protocol),
            f"gap_residual_{name}": Score(evidence - bound - formula, math.nan, "nats/set", False, 1, protocol),
            f"sampled_error_{name}": mean_score(estimates[0] - bound, "nats/set", False, sampling),
            f"closed_error_{name}": mean_score(estimates[1] - bound, "nats/set", False, sampling),
            f"spread_{name}": Score((whole - evidence).abs().max().item(), math.nan, "nats/set", False, len(whole),
                                    {**protocol, "batch": n, "reduced": "largest |estimate - evidence|"}),
        }  # fmt: skip
    return Outcome(scores, [], {})


# --- a small VAE -------------------------------------------------------------------------------------------------


class BatchedVae(nn.Module):
    """R VAEs of one shape, appendix C's: the first half by MAP, the second with q(theta) over their decoders.

    A decoder's layers hold the means of q(theta), and `logvars` what else it needs; for MAP they lie idle.
    """

    def __init__(self, config: FullBayesConfig, n_pixels: int, rng: torch.Generator) -> None:
        super().__init__()
        r, h, z = 2 * config.n_models, config.n_hidden, config.n_latent
        self.n_models = config.n_models
        self.encoder_in, self.encoder_out = BatchedLinear(r, n_pixels, h, rng), BatchedLinear(r, h, 2 * z, rng)
        self.decoder_in, self.decoder_out = BatchedLinear(r, z, h, rng), BatchedLinear(r, h, n_pixels, rng)
        self.logvars = nn.ParameterList(torch.full_like(mean[config.n_models :], config.init_logvar)
                                        for mean in self.means())  # fmt: skip

    def means(self) -> list[Tensor]:
        """theta, or the means of q(theta): weight and bias of both layers, (R, ...) each."""
        return [each for layer in (self.decoder_in, self.decoder_out) for each in (layer.weight, layer.bias)]

    def draw(self, noise: list[Tensor]) -> list[Tensor]:
        """theta of each model: the MAP ones' own, the others' by section 2.4. noise: as `means`, (R / 2, ...)."""
        sampled = zip(self.means(), self.logvars, noise, strict=True)
        return [torch.cat([m[: self.n_models], m[self.n_models :] + (0.5 * v).exp() * e]) for m, v, e in sampled]

    def posterior(self, x: Tensor) -> Gaussian:
        """q(z|x): (R, M, D) -> 2 x (R, M, Z)."""
        return Gaussian(*self.encoder_out(tanh(self.encoder_in(x))).chunk(2, -1))

    def cost(self) -> Tensor:
        """(R,) nats: -log p(theta) without its constant for MAP, KL(q(theta) || N(0, I)) for the others."""
        n = self.n_models
        own = 0.5 * torch.stack([mean[:n].square().flatten(1).sum(1) for mean in self.means()]).sum(0)
        flat = [torch.cat([each.flatten(1) for each in parts], 1)
                for parts in ([mean[n:] for mean in self.means()], list(self.logvars))]  # fmt: skip
        return torch.cat([own, kl_to_standard_normal(*flat)])


def decoded(theta: list[Tensor], z: Tensor) -> Tensor:
    """Logits: (R, M, Z) -> (R, M, D)."""
    w_in, b_in, w_out, b_out = theta
    return torch.baddbmm(b_out, tanh(torch.baddbmm(b_in, z, w_in)), w_out)


def elbos(model: BatchedVae, theta: list[Tensor], x: Tensor, noise: Tensor) -> Tensor:
    """Estimator B of each image's bound at theta: (R, M, D), noise (R, M, Z) -> (R, M)."""
    q = model.posterior(x)
    return bernoulli_log_likelihood(x, decoded(theta, q.sample(noise))) - kl_to_standard_normal(*q)


def parameter_noise(model: BatchedVae, rng: torch.Generator) -> list[Tensor]:
    return [torch.randn(v.shape, generator=rng, device=v.device) for v in model.logvars]


def step(model: BatchedVae, optimizer: torch.optim.Optimizer, n_train: int, x: Tensor, noise: Tensor,
         *theta_noise: Tensor) -> Tensor:  # fmt: skip
    """One update of every model by its own objective; returns the estimates of it, (R,) nats per image.

    NOTE vae2013-N51: one theta a minibatch, where Algorithm 2 draws one for each point. Both are unbiased; shared by
    the minibatch, theta's noise does not average out within it. As in Appendix F the encoder has no prior, in either.
    """
    objective = whole_bound(n_train, elbos(model, model.draw(list(theta_noise)), x, noise), -model.cost()) / n_train
    optimizer.zero_grad(set_to_none=True)
    (-objective.sum()).backward()  # a sum: no model's step depends on how many there are
    optimizer.step()
    return objective.detach()


def binary_digits(config: FullBayesConfig, data: Dataset) -> dict[str, Tensor]:
    """The first n_train training images and all test images, (N, D) in {0, 1}, drawn once for every run.

    Once, for it is the evidence of one data set that is bounded; grey levels 0 .. max_value are rounded to 255ths.
    """
    splits = {"train": data.split("train")[0][: config.n_train], "test": data.split("test")[0]}
    grey = {name: (images.flatten(1).double() * 255 / data.max_value).round().to(torch.uint8)
            for name, images in splits.items()}  # fmt: skip
    return {name: static_binarisation(images, seed) for seed, (name, images) in enumerate(grey.items())}


def full_bayes(config: FullBayesConfig, data: Dataset, workspace: Workspace) -> Outcome:
    """Train n_models by MAP and n_models by appendix F side by side; goes on from the workspace's checkpoint."""
    streams, device = workspace.streams, workspace.device
    digits = {name: images.to(device) for name, images in binary_digits(config, data).items()}
    x, r = digits["train"], 2 * config.n_models
    model = BatchedVae(config, x.shape[1], generator(streams.seed, "init")).to(device)
    adam = torch.optim.Adam(model.parameters(), config.learning_rate, fused=True, capturable=device.type == "cuda")
    optimizer = with_state(adam)
    state: dict[str, Any] = workspace.resume_(model=model, optimizer=optimizer)
    moving = training_tensors(model=model, optimizer=optimizer)
    update = CapturedStep(lambda *inputs: step(model, optimizer, len(x), *inputs), moving, device)
    for t in range(state["step"], config.n_steps):
        index = torch.randint(len(x), (r, config.batch), generator=streams.at("images", t), device=device)
        noise = torch.randn(r, config.batch, config.n_latent, generator=streams.at("latent", t), device=device)
        objective = update(x[index], noise, *parameter_noise(model, streams.at("theta", t)))
        state["step"] = t + 1
        if (t + 1) % max(1, config.n_steps // 20) == 0:
            row = {name: half.mean().item() for name, half in zip(("map", "vb"), objective.chunk(2), strict=True)}
            require_finite(sum(row.values()), "The objective", t + 1, state["history"])
            state["history"].append({"step": t + 1, **row})
        workspace.keep(state, config.n_steps, model=model, optimizer=optimizer)
    found = measured(model, digits, config, streams)
    facts = {"parameters": sum(mean[0].numel() for mean in model.means()),
             **{name: values.tolist() for name, values in found.items()}}  # fmt: skip
    return Outcome(scores(found, config, data), state["history"], model.state_dict(), facts=facts)


@torch.no_grad()
def measured(model: BatchedVae, digits: dict[str, Tensor], config: FullBayesConfig, streams: Streams) -> dict[
    str, Tensor
]:  # fmt: skip
    """One number a model, (R / 2,) each, nats per image.

    map_elbo_*, vb_elbo_*: the plain bound at theta, or its mean over draws of theta from q, which bounds what the
    average of models predicts. full_bound: appendix F's, per training image; kl_theta what it pays for theta, so
    full_bound = vb_elbo_train - kl_theta. *_gap: training minus test. *_active: units whose posterior mean varies.
    """
    n = config.n_models
    found: dict[str, Tensor] = {}
    for split, images in digits.items():
        x = images.expand(2 * n, -1, -1)
        total = torch.zeros(2 * n, dtype=torch.float64)
        for i in range(config.n_parameter_draws):
            theta = model.draw(parameter_noise(model, streams.at(f"theta {split}", i)))
            for j in range(config.n_elbo_draws):
                rng = streams.at(f"z {split} {j}", i)
                noise = torch.randn(*x.shape[:2], config.n_latent, generator=rng, device=x.device)
                total += elbos(model, theta, x, noise).double().mean(1).cpu()
        mean = total / (config.n_parameter_draws * config.n_elbo_draws)
        found |= {f"map_elbo_{split}": mean[:n], f"vb_elbo_{split}": mean[n:]}
    active = (model.posterior(digits["test"].expand(2 * n, -1, -1)).mean.var(1) > ACTIVE_VARIANCE).sum(1).double().cpu()
    cost = model.cost()[n:].double().cpu() / config.n_train
    return found | {
        "kl_theta": cost, "full_bound": found["vb_elbo_train"] - cost,
        "map_gap": found["map_elbo_train"] - found["map_elbo_test"],
        "vb_gap": found["vb_elbo_train"] - found["vb_elbo_test"],
        "map_active": active[:n], "vb_active": active[n:],
    }  # fmt: skip


def scores(found: dict[str, Tensor], config: FullBayesConfig, data: Dataset) -> dict[str, Score]:
    """Means over models with their standard errors."""
    protocol = {
        "averaged_over": "models", "data": data.name, "data_sha256": data.digest, "n_train": config.n_train,
        "observation": "static-binarised", "latents": config.n_latent, "hidden": config.n_hidden,
        "steps": config.n_steps, "theta_draws": config.n_parameter_draws, "draws": config.n_elbo_draws,
    }  # fmt: skip
    return {
        name: mean_score(values, "units" if "active" in name else "nats/image", "elbo" in name or "bound" in name,
                         protocol)
        for name, values in found.items()
    }  # fmt: skip
