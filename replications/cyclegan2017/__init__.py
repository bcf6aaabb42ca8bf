"""Zhu, Park, Isola and Efros 2017, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks".

arXiv 1703.10593. What regen asks of a paper's package: `PRESETS`, `plan(preset, seeds)` and `compute(run, workspace)`;
and `SPLIT`, the configs whose minibatches several processes can share.
"""

from lib.execution.runs import Run
from lib.execution.workspace import Outcome, Workspace
from replications.cyclegan2017 import anchors, evaluate, mixtures, networks
from replications.cyclegan2017.config import AnchorsConfig, MixturesConfig, NetworksConfig, TranslationConfig
from replications.cyclegan2017.presets import PRESETS, plan

__all__ = ["PRESETS", "SPLIT", "compute", "plan"]

SPLIT = (TranslationConfig,)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """One run of the plan, from its config to its scores."""
    config = run.config
    match config:
        case TranslationConfig():
            return evaluate.translation(config, workspace)
        case AnchorsConfig():
            return anchors.anchors(config, workspace)
        case MixturesConfig():
            return mixtures.mixtures(config, workspace)
        case NetworksConfig():
            return Outcome(networks.network_scores(), [], {})
    raise TypeError(f"cyclegan2017 has no runs of {type(config).__name__}")
