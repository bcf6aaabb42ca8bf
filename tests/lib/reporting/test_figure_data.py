"""The numbers behind a figure, read off the drawing, are the numbers that were drawn."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import seaborn as sns

from lib.reporting.figure_data import COLUMNS, figure_data


@pytest.fixture
def axis():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def rows(axis, **wanted) -> pd.DataFrame:
    frame = figure_data(axis.figure)
    assert tuple(frame.columns) == COLUMNS
    for column, value in wanted.items():
        frame = frame[frame[column] == value]
    return frame


def test_a_line_with_its_label_and_its_panel(axis):
    axis.set_title("Panel A")
    axis.plot([1, 2, 3], [0.5, np.nan, 2.5], label="bound")
    found = rows(axis, panel="Panel A", series="bound", kind="line")
    assert found["x"].tolist() == [1, 2, 3]
    assert found["y"].tolist() == [0.5, pytest.approx(np.nan, nan_ok=True), 2.5]


def test_seaborn_lines_take_their_names_from_the_legend_and_bands_their_edges(axis):
    frame = pd.DataFrame({"x": [0, 1] * 4, "y": [0.0, 1, 2, 3, 10, 11, 14, 15], "of": ["a"] * 4 + ["b"] * 4})
    sns.lineplot(frame, x="x", y="y", hue="of", errorbar=("pi", 100), ax=axis)
    assert rows(axis, series="a", kind="line")["y"].tolist() == [1, 2]
    assert rows(axis, series="b", kind="line")["y"].tolist() == [12, 13]
    bands = rows(axis, kind="area")
    assert sorted(zip(bands["low"], bands["high"], strict=True)) == [(0, 2), (1, 3), (10, 14), (11, 15)]


def test_reference_lines_have_one_coordinate(axis):
    axis.plot([0, 1], [0, 1])
    axis.axhline(0.25, label="floor")
    axis.axvline(3.0, label="here")
    assert rows(axis, series="floor")[["kind", "y"]].to_numpy().tolist() == [["reference", 0.25]]
    assert rows(axis, series="here")[["kind", "x"]].to_numpy().tolist() == [["reference", 3.0]]
    assert rows(axis, series="floor")["x"].isna().all()


def test_error_bars_points_and_bars(axis):
    axis.errorbar([1, 2], [10, 20], yerr=[1, 2], fmt="o", label="runs")
    axis.scatter([5, 6], [7, 8], c=[0.1, 0.9], label="dots")
    axis.bar([3, 4], [2, 5], label="bars")
    axis.barh([1], [9], label="wide")
    bars = rows(axis, series="runs", kind="error bar")
    assert bars[["x", "low", "high"]].to_numpy().tolist() == [[1, 9, 11], [2, 18, 22]]
    dots = rows(axis, series="dots", kind="point")
    assert dots[["x", "y", "value"]].to_numpy().tolist() == [[5, 7, 0.1], [6, 8, 0.9]]
    assert rows(axis, series="bars")[["x", "low", "high"]].to_numpy().tolist() == [[3, 0, 2], [4, 0, 5]]
    assert rows(axis, series="wide")[["y", "low", "high"]].to_numpy().tolist() == [[1, 0, 9]]


def test_maps_are_listed_by_cell_and_pictures_by_digest(axis):
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    axis.imshow(values, cmap="viridis", extent=(0, 3, 0, 2), origin="lower")
    axis.pcolormesh([0, 1, 2], [0, 1, 2], [[1.0, 2.0], [3.0, 4.0]])
    axis.imshow(np.zeros((4, 4, 3), np.uint8))
    cells = rows(axis, series="picture 1", kind="cell")
    assert cells[["x", "y", "value"]].to_numpy().tolist()[:4] == [
        [0.5, 0.5, 1],
        [1.5, 0.5, 2],
        [2.5, 0.5, 3],
        [0.5, 1.5, 4],
    ]
    mesh = rows(axis, series="map 1")
    assert mesh[["x", "y", "value"]].to_numpy().tolist() == [[0.5, 0.5, 1], [1.5, 0.5, 2], [0.5, 1.5, 3], [1.5, 1.5, 4]]
    (picture,) = rows(axis, kind="picture")["value"]
    assert picture.startswith("4 x 4 x 3 uint8, 0 to 0, sha256 ")


def test_the_origin_of_a_map_is_where_it_is_drawn(axis):
    axis.imshow(np.array([[1.0], [2.0]]), cmap="viridis", extent=(0, 1, 0, 2), origin="upper")
    cells = rows(axis, kind="cell")
    assert dict(zip(cells["value"], cells["y"], strict=True)) == {1.0: 1.5, 2.0: 0.5}


def test_contours_carry_their_level(axis):
    grid = np.linspace(-1, 1, 21)
    axis.contour(grid, grid, grid[None] ** 2 + grid[:, None] ** 2, levels=[0.25])
    found = rows(axis, kind="contour")
    assert set(found["value"]) == {0.25}
    assert np.hypot(found["x"].astype(float), found["y"].astype(float)).to_numpy() == pytest.approx(0.5, abs=0.01)


def test_floats_keep_seven_digits(axis):
    axis.plot([1 / 3], [123456789.0])
    assert rows(axis)[["x", "y"]].to_numpy().tolist() == [[0.3333333, 123456800.0]]
