"""A figure's bytes: the same in any process, and no larger than the picture asks for."""

import contextlib
import io
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from lib.reporting import style
from lib.reporting.style import figure_files


@pytest.mark.parametrize(("colour", "mode"), [("0.4", "L"), ("tab:orange", "P")])
def test_a_grey_picture_is_stored_as_grey_and_a_coloured_one_by_its_palette(colour, mode):
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1], [1, 0], color=colour)
    stored = Image.open(io.BytesIO(figure_files(figure)["png"]))
    plain = io.BytesIO()
    with plt.rc_context(style._REPEATABLE):
        box = figure.get_tightbbox().padded(style._PADDING_INCHES)
        figure.savefig(plain, format="png", dpi=style.PNG_DPI, facecolor="white", bbox_inches=box)
    assert stored.mode == mode
    ours, theirs = (np.asarray(picture.convert("RGB")).astype(int) for picture in (stored, Image.open(plain)))
    # Grey: no pixel changes. A palette may move a shade of an edge by a level or two, and white stays white.
    assert np.abs(ours - theirs).max() <= (0 if mode == "L" else 8)
    assert ours.max() == 255
    assert figure_files(figure) == figure_files(figure)
    plt.close(figure)


def test_a_picture_that_is_not_kept_is_the_same_unpacked():
    figure, axis = plt.subplots(figsize=(2, 1), layout="constrained")
    axis.plot([0, 1], [1, 0], color="0.4")
    kept, live = (figure_files(figure, ("png",), packed=packed)["png"] for packed in (True, False))
    plt.close(figure)
    assert len(live) > len(kept)
    assert np.array_equal(*(np.asarray(Image.open(io.BytesIO(png)).convert("L")) for png in (kept, live)))


def test_an_svg_loses_digits_and_blanks_but_nothing_of_its_shape():
    figure, axis = plt.subplots(figsize=(4, 3))
    axis.plot(np.linspace(0, 1, 900), np.random.default_rng(0).normal(size=900), label="noise")
    axis.legend()
    plain = io.BytesIO()
    figure.savefig(plain, format="svg")
    plt.close(figure)
    ours = style._compact(plain.getvalue())
    assert len(ours) < 0.8 * len(plain.getvalue())
    paths = [re.findall(rb' d="([^"]*)"', text) for text in (ours, plain.getvalue())]
    assert len(paths[0]) == len(paths[1]) > 10
    for short, long in zip(*paths, strict=True):
        assert re.findall(rb"[A-Za-z]", short) == re.findall(rb"[A-Za-z]", long)
        numbers = [[float(n) for n in re.findall(rb"-?\d+(?:\.\d+)?", path)] for path in (short, long)]
        assert numbers[0] == pytest.approx(numbers[1], abs=0.0101)  # cut at a hundredth of a pixel


def test_nothing_is_cut_off():
    """The longest label ends inside the picture, in each format: its last pixels are not on the edge."""
    figure, axis = plt.subplots(figsize=(7, 2), layout="constrained")
    axis.set_yticks([0, 1], ["variational autoencoder (vae2013), decoder means", "iiiiiiiillllllll" * 4])
    files = figure_files(figure, ("png",))
    plt.close(figure)
    ink = np.asarray(Image.open(io.BytesIO(files["png"])).convert("L")) < 200
    columns, rows = np.flatnonzero(ink.any(0)), np.flatnonzero(ink.any(1))
    assert columns[0] > 3
    assert columns[-1] < ink.shape[1] - 4
    assert rows[0] > 3
    assert rows[-1] < ink.shape[0] - 4


def test_a_pdf_has_no_date_and_no_font_and_its_words_are_there():
    figure, axis = plt.subplots(figsize=(2, 1))
    with_words, without = figure_files(figure)["pdf"], None
    for label in axis.get_xticklabels() + axis.get_yticklabels():
        label.set_visible(False)
    without = figure_files(figure)["pdf"]
    plt.close(figure)
    assert with_words.startswith(b"%PDF-")
    assert b"/CreationDate" not in with_words
    assert b"/FontFile" not in with_words
    assert b"/Type3" not in with_words
    assert len(with_words) > len(without) + 500


@pytest.mark.parametrize(
    ("low", "high", "plain"),
    [(30, 700, True), (0.5, 90_000, True), (0.02, 700, True), (1, 1e6, False), (1e-3, 1e3, False)],
)
def test_log_axes_are_labelled_with_plain_numbers_where_these_are_short(low, high, plain):
    figure, axes = plt.subplots()
    axes.plot([low, high])
    axes.set(yscale="log", ylim=(low, high))
    figure_files(figure, ("png",))
    labels = [text.get_text() for text in axes.get_yticklabels() if text.get_text()]
    assert ("100" in labels) == plain
    assert any("10^" in label for label in labels) != plain
    if plain:
        assert [label for label in labels if "e" in label] == []
        assert "0.1" in labels or low > 0.1
    plt.close(figure)


def test_an_authors_own_ticks_stay():
    figure, axes = plt.subplots()
    axes.plot([30, 700])
    axes.set_yscale("log")
    axes.set_yticks([50, 500], ["few", "many"])
    figure_files(figure, ("png",))
    assert [text.get_text() for text in axes.get_yticklabels()] == ["few", "many"]
    plt.close(figure)


def _demanding_figure():
    figure, axes = plt.subplots(2, 2, figsize=(6, 4), layout="constrained", sharey="row")
    axes[0, 0].plot([1, 30, 700], [0.01, 0.5, 0.02])
    axes[0, 0].set(xscale="log", ylabel="shared")
    axes[0, 1].twinx().plot([3, 5], [1e6, 1.00001e6])  # an offset above its axis
    figure.colorbar(axes[1, 0].imshow([[0, 1e-5]], aspect="auto"), ax=axes[1, 0])
    axes[1, 1].inset_axes((0.5, 0.5, 0.4, 0.4)).plot([0, 1])
    figure.align_ylabels()
    return figure


def test_ticks_are_found_seldom_and_the_picture_is_the_same(monkeypatch):
    from matplotlib.axis import Axis

    calls, found = [], Axis._update_ticks
    monkeypatch.setattr(Axis, "_update_ticks", lambda axis: calls.append(axis) or found(axis))
    remembered, seldom = figure_files(figure := _demanding_figure()), len(calls)
    assert not any({"_update_ticks", "_get_ticklabel_bboxes"} & set(vars(axes.xaxis)) for axes in figure.axes)
    calls.clear()
    monkeypatch.setattr(style, "_ticks_found_once", lambda _: contextlib.nullcontext())
    assert figure_files(_demanding_figure()) == remembered
    assert len(calls) > 2 * seldom > 0
    plt.close("all")
