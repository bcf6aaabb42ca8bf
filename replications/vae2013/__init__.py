"""Kingma & Welling 2013, "Auto-Encoding Variational Bayes" (arXiv 1312.6114).

What regen asks of a paper's package: `PRESETS`, `plan(preset, seeds)` and `compute(run, workspace)`; and
`SPLIT`, the configs whose minibatches several processes can share.
"""

from lib import datasets
from lib.execution.runs import Run
from lib.execution.workspace import Outcome, Workspace
from lib.training.randomness import Streams
from replications.vae2013 import full_bayes, gradients, hierarchies, linear_vae, strong_decoder
from replications.vae2013.class_conditional import ClassConditionalConfig, generative_and_discriminative
from replications.vae2013.closed_forms import estimator_checks, linear_gaussian_checks, ppca
from replications.vae2013.config import (
    AevbConfig,
    BaselinesConfig,
    EstimatorsConfig,
    LinearGaussianConfig,
    PpcaConfig,
)
from replications.vae2013.convolutional import ConvolutionalConfig, train_convolutional
from replications.vae2013.evaluate import baselines, evaluate, sample_sheet
from replications.vae2013.frames import FramesConfig, frame_baselines
from replications.vae2013.full_bayes import ConjugateConfig, FullBayesConfig
from replications.vae2013.gradients import GradientsConfig, ReparametrisationConfig
from replications.vae2013.hierarchies import HierarchiesConfig
from replications.vae2013.iwae import IwaeConfig, train_iwae
from replications.vae2013.linear_vae import LinearVaeConfig
from replications.vae2013.marginal import MarginalConfig
from replications.vae2013.monte_carlo_em import figure_three
from replications.vae2013.networks import n_parameters
from replications.vae2013.presets import PRESETS, plan
from replications.vae2013.side_by_side import CurveConfig
from replications.vae2013.strong_decoder import StrongDecoderConfig
from replications.vae2013.train import train
from replications.vae2013.wake_sleep import learning_curves

__all__ = ["PRESETS", "SPLIT", "compute", "plan"]

SPLIT = (ConvolutionalConfig,)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """One run of the plan, from its config to its scores."""
    config, streams = run.config, Streams(workspace.streams.seed)  # closed forms: small, in float64, on the CPU always
    match config:
        case AevbConfig():
            return _aevb(config, workspace)
        case CurveConfig():
            return learning_curves(config, workspace)
        case IwaeConfig():
            return train_iwae(config, workspace)
        case ConvolutionalConfig():
            return train_convolutional(config, workspace)
        case ClassConditionalConfig():
            return generative_and_discriminative(config, workspace)
        case MarginalConfig():
            return figure_three(config, workspace)
        case HierarchiesConfig():
            return hierarchies.hierarchies(config, workspace)
        case StrongDecoderConfig():
            return strong_decoder.strong_decoder(config, workspace)
        case ReparametrisationConfig():
            return gradients.reparametrisation(config, workspace)
        case GradientsConfig():
            return gradients.gradients(config, datasets.load(config.data), workspace)
        case LinearVaeConfig():
            return linear_vae.linear_vae(config, datasets.load(config.data), workspace)
        case ConjugateConfig():
            return full_bayes.conjugate(config, workspace)
        case FullBayesConfig():
            return full_bayes.full_bayes(config, datasets.load(config.data), workspace)
        case LinearGaussianConfig():
            return Outcome(linear_gaussian_checks(config, streams), [], {})
        case EstimatorsConfig():
            return Outcome(estimator_checks(config, streams), [], {})
        case PpcaConfig():
            return Outcome(ppca(config, datasets.load(config.data), streams), [], {})
        case BaselinesConfig():
            return Outcome(baselines(config, datasets.load(config.data), streams), [], {})
        case FramesConfig():
            return Outcome(frame_baselines(config, datasets.load(config.data)), [], {})
    raise TypeError(f"vae2013 has no runs of {type(config).__name__}")


def _aevb(config: AevbConfig, workspace: Workspace) -> Outcome:
    data = datasets.load(config.data)
    model, learning_rate, trial_bounds, history = train(config, data, workspace)
    scores = evaluate(model, data, config, workspace.streams)
    facts = {"learning_rate": learning_rate, "trial_bounds": trial_bounds, "parameters": n_parameters(model)}
    return Outcome(scores, history, model.state_dict(), sample_sheet(model, workspace.streams), facts)
