"""One generator iteration (5 critic steps and 1) beside the authors' loop, written plainly in today's PyTorch."""

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lib.execution.execute import deterministic
from lib.timing import counted_flop, matrix_product, peak_megabytes, product_rates, ratio_quartiles, take_turns, waiting
from lib.training.checkpoints import training_tensors
from lib.training.graphs import CapturedStep
from lib.training.provenance import device_name
from lib.training.randomness import MinibatchOrder, Streams
from replications.wgan2017.config import ImagesConfig
from replications.wgan2017.networks import FromPoint, Nets, ToImage, ToPoint, build
from replications.wgan2017.pixels import Pixels
from replications.wgan2017.train import critic_step, draw_noise, generator_step, players_of

ROUNDS = 12
N_IMAGES = 1280
# Filters, channels and threads of each case; first the laptop preset's networks, last the paper's at 32 x 32.
CASES = ((16, 1, 2), (16, 1, 1), (64, 3, 2))


def measure(rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """One row a case: milliseconds an iteration, medians, and the authors' loop over ours within each round.

    `loop` takes its minibatches by indexing, so that the two differ in the training alone; `with loader` takes them
    from a DataLoader, as the authors do.
    """
    cases = [("cpu", *case) for case in CASES]
    if torch.cuda.is_available():
        cases.append(("cuda", 64, 3, 1))
    return [measure_case(*case, rounds) for case in cases]


def measure_case(device: str, n_filters: int, channels: int, threads: int, rounds: int) -> dict[str, Any]:
    with deterministic(device):
        torch.set_num_threads(threads)
        where = torch.device(device)
        works = contenders(n_filters, channels, where)
        flop = counted_flop(works["loop"])  # of the plain layers: ours do the same work, some of it in other shapes
        calls = {"repeats": 1, "warm_up": 1} if n_filters > 16 and device == "cpu" else {}  # seconds each
        times = take_turns(works | {"product": matrix_product(where)}, rounds, **calls)
    ms = {name: 1e3 * statistics.median(seconds) for name, seconds in times.items()}
    shape = f"{channels} x 32 x 32, {n_filters} filters"
    row: dict[str, Any] = {"case": f"{shape}, {threads} thread{'s' if threads > 1 else ''}, {device}"}
    row["device"] = device_name(torch.device(device))
    row |= {f"{name} ms": round(value, 2) for name, value in ms.items() if name != "product"}
    row |= {f"{name} / ours": ratio_quartiles(times[name], times["ours"]) for name in ("loop", "with loader")}
    config = made_up_config(n_filters)
    row["images/s"] = round(config.batch * config.n_critic / ms["ours"] * 1e3)  # real ones, each with a fake
    row |= product_rates(flop, times["ours"], times["product"])
    if device == "cpu":
        call = f"{__name__}.two_iterations", n_filters, channels, threads
        row |= {f"{name} peak MB": peak_megabytes(*call, name) for name in ("ours", "loop")}
    return row


def two_iterations(n_filters: str, channels: str, threads: str, which: str) -> None:
    """For `peak_megabytes`. All contenders are made, one iterates."""
    torch.set_num_threads(int(threads))
    iteration = contenders(int(n_filters), int(channels), torch.device("cpu"))[which]
    iteration()
    iteration()


def made_up_config(n_filters: int) -> ImagesConfig:
    return ImagesConfig("made up", "wgan", "dcgan", "dcgan", 1, n_filters=n_filters)


def contenders(n_filters: int, channels: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Each a call that does one generator iteration."""
    config = made_up_config(n_filters)
    streams, shape = Streams(0, device), (channels, 32, 32)
    images = torch.randint(0, 256, (N_IMAGES, *shape), dtype=torch.uint8, generator=streams.at("images"), device=device)
    plain, loaded = (PlainLoop(config, build(config, shape, streams), images) for _ in range(2))
    batches = loaded.loader_batches()

    return {
        "ours": waiting(our_iteration(config, build(config, shape, streams), images, streams), device),
        "loop": waiting(lambda: plain.iteration(plain.indexed_batches()), device),
        "with loader": waiting(lambda: loaded.iteration(batches), device),
    }


def our_iteration(config: ImagesConfig, nets: Nets, images: Tensor, streams: Streams) -> Callable[[], None]:
    """The training loop's own iteration."""
    players, device = players_of(nets, config), streams.device
    optimizers = {"g": players.generator.optimizer, "c": players.critic.optimizer}
    tensors = training_tensors(**nets._asdict(), **optimizers)
    update_critic = CapturedStep(lambda *inputs: critic_step(players, config, *inputs), tensors, device)
    update_generator = CapturedStep(lambda z: generator_step(players, config, z), tensors, device)
    order = MinibatchOrder(0, len(images), config.batch, device)
    pixels, count = Pixels(images, images, None, "", ""), iter(range(10**9))

    def iteration() -> None:
        step = next(count)
        *noise, last = draw_noise(config, config.n_critic + 1, streams, step)
        mixes = torch.rand(config.n_critic, config.batch, generator=streams.at("mix", step), device=device)
        for k in range(config.n_critic):
            update_critic(pixels.minibatch(order(config.n_critic * step + k)), noise[k], mixes[k])
        update_generator(last)

    return iteration


class PlainLoop:
    """The inner loop of the authors' main.py in today's PyTorch: same networks, same first weights, same order of work.

    Two departures, both in favour of neither: it clips after the step (Algorithm 1), where the authors do before; and
    images come normalised already.
    """

    def __init__(self, config: ImagesConfig, nets: Nets, images: Tensor) -> None:
        self.config, self.device = config, images.device
        self.netG, self.netD = (as_plain(network).to(next(network.parameters())) for network in nets)
        self.optimizerG, self.optimizerD = (
            torch.optim.RMSprop(network.parameters(), lr=config.learning_rate) for network in (self.netG, self.netD)
        )
        self.images = images.float().div(127.5).sub(1)
        self.one = torch.ones(1, device=self.device)
        self.noise: Callable[[], Tensor] = lambda: torch.randn(config.batch, config.n_latent, 1, 1, device=self.device)

    def indexed_batches(self) -> Iterator[Tensor]:
        while True:
            yield self.images[torch.randint(len(self.images), (self.config.batch,), device=self.device)]

    def loader_batches(self) -> Iterator[Tensor]:
        data = TensorDataset(self.images.cpu())
        while True:
            for (batch,) in DataLoader(data, batch_size=self.config.batch, shuffle=True, drop_last=True):
                yield batch.to(self.device)

    def iteration(self, batches: Iterator[Tensor]) -> None:
        for p in self.netD.parameters():
            p.requires_grad = True
        for _ in range(self.config.n_critic):
            self.netD.zero_grad()
            err_real = self.netD(next(batches)).mean(0).view(1)
            err_real.backward(-self.one)
            with torch.no_grad():
                fake = self.netG(self.noise())
            err_fake = self.netD(fake).mean(0).view(1)
            err_fake.backward(self.one)
            self.optimizerD.step()
            for p in self.netD.parameters():
                p.data.clamp_(-self.config.clip, self.config.clip)
        for p in self.netD.parameters():
            p.requires_grad = False
        self.netG.zero_grad()
        err_g = self.netD(self.netG(self.noise())).mean(0).view(1)
        err_g.backward(-self.one)
        self.optimizerG.step()


def as_plain(network: nn.Sequential) -> nn.Sequential:
    """The network with PyTorch's own modules throughout, its weights copied."""
    layers = [_plain_layer(layer) for layer in network]
    return nn.Sequential(*layers)


def _plain_layer(layer: nn.Module) -> nn.Module:
    match layer:
        case FromPoint():
            n_in, n_out = layer.weight.shape[:2]
            plain: nn.Module = nn.ConvTranspose2d(n_in, n_out, 4, 1, 0, bias=False)
        case ToImage():
            n_in, n_out = layer.weight.shape[:2]
            plain = nn.ConvTranspose2d(n_in, n_out, 4, 2, 1, bias=False)
        case ToPoint():
            plain = nn.Conv2d(layer.weight.shape[1], 1, 4, 1, 0, bias=False)
        case nn.ConvTranspose2d():
            plain = nn.ConvTranspose2d(layer.in_channels, layer.out_channels, 4, 2, 1, bias=False)
        case nn.Conv2d():
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, 4, 2, 1, bias=layer.bias is not None)
        case nn.BatchNorm2d():
            plain = nn.BatchNorm2d(layer.num_features)
        case nn.LeakyReLU():
            return nn.LeakyReLU(layer.negative_slope, inplace=True)
        case nn.ReLU():
            return nn.ReLU(inplace=True)
        case _:
            return nn.Tanh()
    with torch.no_grad():
        for ours, theirs in zip(layer.parameters(), plain.parameters(), strict=True):
            theirs.copy_(ours)
    return plain
