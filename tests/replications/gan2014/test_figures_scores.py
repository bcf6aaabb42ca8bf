"""The Parzen score beside the FID: also of the VAE, whose runs are another paper's, where both measured alike."""

import matplotlib.pyplot as plt
import pytest

from replications import papers
from replications.gan2014.figures_scores import VAE, VAE_SOURCE, parzen_figure, score_rows, vae_fid


@pytest.fixture(scope="module")
def published():
    return [papers.read(key, "laptop", None, papers.PUBLISHED, needs_weights=False) for key in ("gan2014", "vae2013")]


def test_vae_has_its_own_fid(published):
    gan, vae = published
    others = score_rows(gan, "fid", "mnist-5k")
    row = vae_fid(gan, vae, others)
    assert row.reading.values == tuple(o.scores["fid"].value for o in vae.finished(VAE))
    figure = parzen_figure(gan, vae)
    assert not [text for axis in figure.axes for text in axis.texts if text.get_text() == "not measured"]
    assert any(VAE_SOURCE in label.get_text() for label in figure.axes[0].get_yticklabels())
    plt.close(figure)


def test_unlike_protocols_never_meet(published):
    gan, vae = published
    others = score_rows(gan, "fid", "mnist-5k")
    fewer = others[0]._replace(protocol={**others[0].protocol, "generated": 999})
    assert vae_fid(gan, vae, [*others, fewer]) is None
    assert vae_fid(gan, None, others) is None
