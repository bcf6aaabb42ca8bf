"""Train the network behind `judge`: python -m replications.cyclegan2017.train_judge --fakes PATH --out PATH

Every method and ablation of the laptop preset is trained once, MADE_AFTER steps long, with the seed HELD_OUT and
translates label maps of fresh scenes; the judge learns to tell these photographs from real renderings, as many of
either. Its schedule is fixed, and the last step is taken. One thread; some minutes.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.datasets import scenes
from lib.execution.workspace import Workspace
from lib.files import write_atomically
from lib.training.randomness import generator, stream_seed
from replications.cyclegan2017.baselines import method_of
from replications.cyclegan2017.config import TranslationConfig
from replications.cyclegan2017.evaluate import translator
from replications.cyclegan2017.judge import SIDE, glimpse, network
from replications.cyclegan2017.presets import PRESETS
from replications.cyclegan2017.tasks import load
from replications.cyclegan2017.train import train

HELD_OUT = 100  # seed of the trainings whose photographs the judge sees
MADE_AFTER = 600  # steps of those trainings: as many as laptop's had when the judge was made
SCENES_SEED, REAL_SEED, TEST_SEED = 30_000, 30_001, 30_002
N_EACH, N_TEST = 800, 100  # photographs of each method, to train and to test on
STEPS, BATCH, LEARNING_RATE = 1500, 64, 1e-3


def made(config: TranslationConfig, n: int, seed: int) -> Tensor:
    """n photographs by a method trained with the seed HELD_OUT, of label maps that it has not seen."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace(Path(folder), HELD_OUT, checkpoint_seconds=1e9)
        domains = load(config, workspace.device).domains
        method = method_of(config, (3, 3), workspace.streams, workspace.device)
        train(method, config, domains, workspace)
    labels = scenes.scenes(n, config.side, seed).labels
    return translator(method.to_b)(scenes.as_pictures(labels)).contiguous()


def learn(fake: Tensor, real: Tensor) -> nn.Module:
    """The judge after the last step. fake, real: uint8 (N, 3, 32, 32)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(0, "judge"))
        judge = network()
    images = torch.cat([fake, real])
    truth = torch.cat([torch.zeros(len(fake)), torch.ones(len(real))])
    optimiser = torch.optim.AdamW(judge.parameters(), LEARNING_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3 * LEARNING_RATE, total_steps=STEPS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(1, "judge"))  # of the dropout
        for step in range(STEPS):
            draws = generator(0, "judge", step)
            rows = torch.randint(len(images), (BATCH,), generator=draws)
            x = glimpse(images[rows])
            x = torch.where((torch.rand(BATCH, generator=draws) < 0.5).view(-1, 1, 1, 1), x.flip(-1), x)
            loss = F.binary_cross_entropy_with_logits(judge(x)[:, 0], truth[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return judge.eval()


def all_made(file: Path) -> dict[str, Tensor]:
    """Photographs by every method, read from `file` if it is there, else made and kept in it."""
    if not file.is_file():
        found = {}
        for name, config in PRESETS["laptop"].items():
            if isinstance(config, TranslationConfig) and config.task == "scenes":
                found[name] = made(replace(config, n_steps=MADE_AFTER, n_test=N_TEST), N_EACH + N_TEST, SCENES_SEED)
                print(f"{name}: trained", flush=True)
        write_atomically(file, safetensors.torch.save(found))
    return safetensors.torch.load(file.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the held-out discriminator of cyclegan2017.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--fakes", type=Path, required=True, help="where the made photographs are, or are to be kept")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = all_made(asked.fakes)
    fakes = torch.cat([images[:N_EACH] for images in found.values()])
    judge = learn(fakes, scenes.scenes(len(fakes), SIDE, REAL_SEED).photographs)
    tests = {name: images[N_EACH:] for name, images in found.items()}
    tests["real"] = scenes.scenes(1000, SIDE, TEST_SEED).photographs
    with torch.no_grad():
        for name, images in tests.items():
            print(f"{name}: {(judge(glimpse(images))[:, 0] > 0).float().mean():.3f} called real", flush=True)
    state = {name: tensor for name, tensor in judge.state_dict().items() if not name.endswith("num_batches_tracked")}
    write_atomically(asked.out, safetensors.torch.save(state))


if __name__ == "__main__":
    main()
