"""DCGAN (Radford et al. 2016): alternating updates, training on the device, sampling, and the run of its config."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lib import datasets
from lib.execution.workspace import Outcome, Workspace, require_finite
from lib.losses.adversarial import discriminator_loss, nonsaturating_loss
from lib.metrics import to_uint8
from lib.metrics.quality import quality
from lib.models.batch_norm import share_batch_norm_
from lib.models.dcgan import DcganDiscriminator, DcganGenerator, draw_weights_, pack, to_unit_range
from lib.reporting.sheets import image_sheet
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.optimizers import with_state
from lib.training.processes import ALONE, Processes
from lib.training.randomness import MinibatchOrder, Streams, generator
from replications.gan2014.config import DcganConfig, StackedConfig
from replications.gan2014.splits import HELD_OUT, reference_images, reference_split

N_POINTS = 20  # of the training curves
SHEET = 64  # images on the sample sheet
CHUNK = 500  # images generated at once
ADAM_BETA2 = 0.999  # Kingma & Ba 2015; Radford 2016 names no other
COLUMNS = ("discriminator_loss", "generator_loss", "d_real", "d_fake")


class Dcgan(NamedTuple):
    """The two networks, each with its Adam."""

    generator: DcganGenerator
    discriminator: DcganDiscriminator
    generator_adam: torch.optim.Optimizer
    discriminator_adam: torch.optim.Optimizer


def build(config: DcganConfig | StackedConfig, image: tuple[int, ...], streams: Streams) -> Dcgan:
    """Networks for images (C, H, H) with their first weights; equal seeds start equal on every device."""
    # DEVIATION gan2014-D50: kernels of 4 x 4, which stride 2 lays evenly over the image, where both authors have 5 x 5.
    channels, side = image[:2]
    n_pack = config.n_pack if isinstance(config, StackedConfig) else 1
    g = DcganGenerator(config.n_latent, channels, side, config.n_filters, config.n_layers, batch_norm=True)
    d = DcganDiscriminator(n_pack * channels, side, config.n_filters, config.n_layers, batch_norm=True)
    for network, name in ((g, "generator"), (d, "discriminator")):
        # NOTE gan2014-N54: batch norm's scales start around 1; no weight decay.
        draw_weights_(network, config.init_sd, generator(streams.seed, f"init {name}"))
        network.to(streams.device)
    return Dcgan(g, d, adam(g, config.learning_rate, config.beta1), adam(d, config.learning_rate, config.beta1))


def adam(network: nn.Module, learning_rate: float, beta1: float) -> torch.optim.Adam:
    on_cuda = next(network.parameters()).device.type == "cuda"  # only there can a step be captured, and need it be
    betas = (beta1, ADAM_BETA2)
    return with_state(torch.optim.Adam(network.parameters(), learning_rate, betas, fused=True, capturable=on_cuda))


def uniform_noise(n: int, n_latent: int, generator: torch.Generator) -> Tensor:
    """z uniform on (-1, 1), (n, n_latent) on the generator's device; Radford 2016, figure 1."""
    return torch.rand(n, n_latent, generator=generator, device=generator.device).mul_(2).sub_(1)


def discriminator_update(
    nets: Dcgan, real: Tensor, noise: Tensor, n_pack: int = 1, processes: Processes = ALONE
) -> Tensor:
    """One update of the discriminator alone. real: (B, C, H, H) in -1 .. 1, noise: (B, Z), B a multiple of n_pack.

    Returns (3,): the loss in nats, mean D on real and mean D on generated images, before the update, on the device. Of
    several processes each takes its share of real and noise, and returns what it found on that.
    """
    with torch.no_grad():
        fake = nets.generator(noise)
    # NOTE gan2014-N50: two passes, so that batch norm never sees real and generated images in one batch.
    on_real, on_fake = nets.discriminator(pack(real, n_pack)), nets.discriminator(pack(fake, n_pack))
    loss = discriminator_loss(on_real, on_fake)
    _descend(nets.discriminator_adam, loss, processes)
    return torch.stack([loss, on_real.sigmoid().mean(), on_fake.sigmoid().mean()]).detach()


def generator_update(nets: Dcgan, noise: Tensor, n_pack: int = 1, processes: Processes = ALONE) -> Tensor:
    """One update of the generator alone, by the non-saturating loss, which is returned: () nats, before the update."""
    loss = nonsaturating_loss(nets.discriminator(pack(nets.generator(noise), n_pack)))
    _descend(nets.generator_adam, loss, processes)
    return loss.detach()


def _descend(optimizer: torch.optim.Optimizer, loss: Tensor, processes: Processes) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.zero_grad(set_to_none=True)
    loss.backward(inputs=parameters)  # gradients of the other network's weights are not even computed
    processes.mean_(*(parameter.grad for parameter in parameters))
    optimizer.step()


class Means(nn.Module):
    """Sums of what the steps returned since the last point of the curve; a module, so that checkpoints hold it."""

    sums: Tensor  # (4,), in the order of COLUMNS

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(len(COLUMNS), device=device))

    def take(self, n_steps: int) -> dict[str, float]:
        """The means over n_steps steps; the sums start anew."""
        values = (self.sums / n_steps).tolist()
        self.sums.zero_()
        return dict(zip(COLUMNS, values, strict=True))


def train(
    nets: Dcgan,
    real_images: Callable[[Tensor], Tensor],
    n_images: int,
    config: DcganConfig | StackedConfig,
    workspace: Workspace,
) -> list[dict[str, float]]:
    """config.n_steps steps of Algorithm 1 with Adam; goes on from the workspace's checkpoint. Returns the curves.

    real_images: row numbers (B,) of 0 .. n_images - 1 -> uint8 (B, C, H, H), on the device.
    """
    n_pack, n_updates = (config.n_pack, config.generator_updates) if isinstance(config, StackedConfig) else (1, 1)
    n, processes = config.batch * n_pack, workspace.processes
    for network in (nets.generator, nets.discriminator):
        share_batch_norm_(network, processes)
    order = MinibatchOrder(workspace.streams.seed, n_images // n * n, n, workspace.device)
    means, due = Means(workspace.device), curve_steps(config.n_steps)
    parts = {**nets._asdict(), "means": means}
    state: dict[str, Any] = workspace.resume_(**parts)

    def play(images: Tensor, noise: Tensor) -> None:
        played = discriminator_update(nets, to_unit_range(images), noise[0], n_pack, processes)
        for z in noise[1:]:
            generator_loss = generator_update(nets, z, n_pack, processes)
        found = torch.cat([played[:1], generator_loss[None], played[1:]])
        processes.mean_(found)
        means.sums += found

    update = CapturedStep(play, training_tensors(**parts), workspace.device, processes)
    for step in range(state["step"], config.n_steps):
        # NOTE gan2014-N52: alternating, fresh noise for each update, as Algorithm 1 has it.
        noise = uniform_noise(n * (1 + n_updates), config.n_latent, workspace.streams.at("noise", step))
        shares = processes.share(noise.view(1 + n_updates, n, -1), dim=1)
        update(real_images(processes.share(order(step))), shares)
        state["step"] = step + 1
        if step + 1 in due:
            point = means.take(step + 1 - (state["history"][-1]["step"] if state["history"] else 0))
            state["history"].append({"step": step + 1, **point})
            for name in COLUMNS:
                require_finite(point[name], f"The mean {name.replace('_', ' ')}", step + 1, state["history"])
        workspace.keep(state, config.n_steps, **parts)
    history: list[dict[str, float]] = state["history"]
    return history


def curve_steps(n_steps: int) -> set[int]:
    """N_POINTS steps at even distances, the last among them; all, where there are fewer."""
    return {n_steps * (i + 1) // N_POINTS for i in range(N_POINTS)} - {0}


@torch.no_grad()
def generate(network: DcganGenerator, n: int, streams: Streams) -> Tensor:
    """n images of fresh noise, uint8 (n, C, H, H) on the streams' device. The network is left in eval mode."""
    # NOTE gan2014-N51: with batch norm's running statistics, so that an image depends on its own noise alone.
    network.eval()
    chunks = [
        to_uint8(network(uniform_noise(min(CHUNK, n - start), network.n_latent, streams.at("generate", start))), -1, 1)
        for start in range(0, n, CHUNK)
    ]
    return torch.cat(chunks)


def sample_sheet(images: Tensor) -> Tensor:
    """The first SHEET images as one: uint8 (C, H', W')."""
    return image_sheet(images[:SHEET].cpu(), 8, pad_value=255)


def dcgan(config: DcganConfig, workspace: Workspace) -> Outcome:
    """Train on a data set and score as many generated images as there are real ones that no training saw."""
    data, streams = datasets.load(config.data), workspace.streams
    images = data.split("train")[0][: HELD_OUT.get(config.data)].to(workspace.device)
    real = reference_images(data)[: config.n_generated]
    nets = build(config, tuple(images.shape[1:]), streams)
    untrained = generate(nets.generator, len(real), streams)
    nets.generator.train()
    history = train(nets, lambda rows: images.index_select(0, rows), len(images), config, workspace)
    workspace.leave_scores_to_the_first()
    generated = generate(nets.generator, len(real), streams)
    protocol = {
        "data": data.name,
        "data_sha256": data.digest,
        "split": reference_split(data),
        "batch_norm": "running statistics",
        "noise": "fresh",
    }

    def measured(made: Tensor) -> tuple[dict[str, Any], dict[str, str]]:
        return quality(made, real, data.name, seed=streams.seed, device=workspace.device, protocol=protocol)

    scores, left_out = measured(generated)
    floor = {"fid_untrained": measured(untrained)[0]["fid"]} if scores else {}
    facts = {"parameters": n_parameters(nets), "images_trained_on": len(images) // config.batch * config.batch}
    return Outcome(scores | floor, history, nets.generator.state_dict(), sample_sheet(generated), facts | left_out)


def n_parameters(nets: Dcgan) -> int:
    return sum(p.numel() for network in (nets.generator, nets.discriminator) for p in network.parameters())
