"""Goodfellow et al. 2014, "Generative Adversarial Nets" (arXiv 1406.2661).

What regen asks of a paper's package: `PRESETS`, `plan(preset, seeds)` and `compute(run, workspace)`; and
`SPLIT`, the configs whose minibatches several processes can share.
"""

from typing import Any

from lib import datasets
from lib.execution.runs import Run
from lib.execution.workspace import Outcome, Workspace
from lib.training.randomness import Streams
from replications.gan2014 import (
    dcgan,
    evaluate,
    figure_one,
    helvetica,
    push_forward,
    sensitivity,
    stacked,
    toys,
    train,
)
from replications.gan2014.baselines import compute_baselines
from replications.gan2014.closed_forms import theory
from replications.gan2014.config import (
    BaselinesConfig,
    DcganConfig,
    FigureOneConfig,
    GanConfig,
    HelveticaConfig,
    PushForwardConfig,
    SensitivityConfig,
    StackedConfig,
    TheoryConfig,
    ToyConfig,
)
from replications.gan2014.networks import n_parameters
from replications.gan2014.presets import PRESETS, plan

__all__ = ["PRESETS", "SPLIT", "compute", "plan"]

SPLIT = (GanConfig, DcganConfig, StackedConfig)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """One run of the plan, from its config to its scores."""
    config = run.config
    match config:
        case GanConfig():
            return _gan(config, workspace)
        case DcganConfig():
            return dcgan.dcgan(config, workspace)
        case StackedConfig():
            return stacked.stacked(config, workspace)
        case ToyConfig():
            return toys.toys(config, workspace)
        case SensitivityConfig():
            return sensitivity.sensitivity(config, workspace)
        case FigureOneConfig():
            return figure_one.figure_one(config, workspace)
        case PushForwardConfig():
            return push_forward.push_forward(config, workspace)
        case HelveticaConfig():
            return helvetica.helvetica(config, workspace)
        case TheoryConfig():
            return theory(config, Streams(workspace.streams.seed))  # small and in float64: on the CPU always
        case BaselinesConfig():
            scores, facts = compute_baselines(config, datasets.load(config.data), workspace.streams)
            return Outcome(scores, [], {}, facts=facts)
    raise TypeError(f"gan2014 has no runs of {type(config).__name__}")


def _gan(config: GanConfig, workspace: Workspace) -> Outcome:
    data = datasets.load(config.data)
    rows = evaluate.rows_for(config, data, workspace.device)
    training = train.train(config, rows, tuple(data.images.shape[1:]), workspace)
    workspace.leave_scores_to_the_first()
    scores, facts = evaluate.evaluate(training, rows, data, config, workspace.streams)
    parameters = {name: n_parameters(net) for name, net in training.nets._asdict().items()}
    told: dict[str, Any] = {"parameters": parameters, "chosen_epoch": training.chosen_epoch}
    # A generator for CIFAR-10 has up to 358 MB of weights: figures cut its samples from the sheet.
    weights = training.chosen.state_dict() if config.bounded else {}
    sheet = evaluate.sample_sheet(training, data, config, workspace.streams)
    return Outcome(scores, training.history, weights, sheet, facts | told | {"gradients": training.gradients})
