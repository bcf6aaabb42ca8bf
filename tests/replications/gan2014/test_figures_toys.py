"""Mode collapse over training: what the figure's parts hide of each other."""

import matplotlib.pyplot as plt

from replications import papers
from replications.gan2014.figures_toys import curves


def test_the_legend_of_the_curves_lies_on_none():
    figure = curves(papers.read("gan2014", "laptop", None, papers.PUBLISHED, needs_weights=False))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["minimax GAN", "non-saturating GAN", "PacGAN2"]
    figure.canvas.draw()
    box = legend.get_window_extent()
    assert not any(axis.get_legend() or axis.get_tightbbox().overlaps(box) for axis in figure.axes)
    plt.close(figure)
