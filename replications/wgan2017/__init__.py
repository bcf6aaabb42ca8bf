"""Arjovsky et al. 2017, "Wasserstein GAN" (arXiv 1701.07875).

What regen asks of a paper's package: `PRESETS`, `plan(preset, seeds)` and `compute(run, workspace)`; and
`SPLIT`, the configs whose minibatches several processes can share.
"""

from lib.execution.runs import Run
from lib.execution.workspace import Outcome, Workspace
from replications.wgan2017 import (
    calibration,
    depth,
    distances,
    evaluate,
    figure_two,
    momentum,
    stacked,
    surfaces,
    toys,
)
from replications.wgan2017.config import (
    AnchorsConfig,
    CalibrationConfig,
    DepthConfig,
    DistancesConfig,
    FigureTwoConfig,
    ImagesConfig,
    MomentumConfig,
    StackedConfig,
    SurfacesConfig,
    ToyConfig,
)
from replications.wgan2017.presets import PRESETS, plan

__all__ = ["PRESETS", "SPLIT", "compute", "plan"]

SPLIT = (ImagesConfig, StackedConfig)


def compute(run: Run, workspace: Workspace) -> Outcome:
    """One run of the plan, from its config to its scores."""
    config = run.config
    match config:
        case ImagesConfig():
            return evaluate.images(config, workspace)
        case AnchorsConfig():
            return evaluate.anchors(config, workspace)
        case DistancesConfig():
            return distances.distances(config, workspace)
        case CalibrationConfig():
            return calibration.calibration(config, workspace)
        case FigureTwoConfig():
            return figure_two.figure_two(config, workspace)
        case ToyConfig():
            return toys.toys(config, workspace)
        case SurfacesConfig():
            return surfaces.surfaces(config, workspace)
        case DepthConfig():
            return depth.depth(config, workspace)
        case MomentumConfig():
            return momentum.momentum(config, workspace)
        case StackedConfig():
            return stacked.stacked(config, workspace)
    raise TypeError(f"wgan2017 has no runs of {type(config).__name__}")
