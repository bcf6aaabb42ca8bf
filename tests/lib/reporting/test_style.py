"""A figure's bytes: the same in any process, and no larger than the picture asks for."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lib.reporting import style
from lib.reporting.style import figure_bytes


@pytest.mark.parametrize(("colour", "mode"), [("0.4", "L"), ("tab:orange", "P")])
def test_a_grey_picture_is_stored_as_grey_and_a_coloured_one_by_its_palette(colour, mode):
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1], [1, 0], color=colour)
    stored = Image.open(io.BytesIO(figure_bytes(figure, "png")))
    plain = io.BytesIO()
    with plt.rc_context(style._REPEATABLE):
        figure.savefig(plain, format="png", dpi=style.PNG_DPI, facecolor="white")
    assert stored.mode == mode
    ours, theirs = (np.asarray(picture.convert("RGB")).astype(int) for picture in (stored, Image.open(plain)))
    # Grey: no pixel changes. A palette may move a shade of an edge by a level or two, and white stays white.
    assert np.abs(ours - theirs).max() <= (0 if mode == "L" else 8)
    assert ours.max() == 255
    assert figure_bytes(figure, "png") == figure_bytes(figure, "png")
    plt.close(figure)


def test_an_svg_is_left_as_it_is():
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    assert figure_bytes(figure, "svg").startswith(b"<?xml")
    plt.close(figure)
