"""Tables and figures drawn from a store of made-up runs, whose every number is known."""

import json
import math
import statistics
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from lib.execution.execute import Options, execute
from lib.execution.runs import Run, Store
from lib.execution.workspace import Outcome, Workspace
from lib.reporting.sheets import image_sheet
from lib.results import Score
from replications import papers
from replications.cyclegan2017 import figures_scenes, figures_tasks, plan
from replications.cyclegan2017.config import AnchorsConfig, TranslationConfig
from replications.cyclegan2017.figures_scenes import ABLATION_ROWS, METHOD_ROWS
from replications.cyclegan2017.presets import PHOTO_ARMS, translations

SEEDS = 3
PICTURES = ("a", "b", "fake_b", "fake_a", "back_a", "back_b")
KINDS = [
    *(f"{way}_{key}" for way in ("photo", "label") for key in ("pixel", "class", "iou", "information")),
    *(f"{key}_{way}" for way in ("a", "b") for key in (
        "cycle", "noise", "jpeg", "change", "shift", "diversity", "fooling", "two_sample", "kid", "fid", "same",
        "information", "recoloured", "reshaped", "outline_kept", "outline_iou")),
]  # fmt: skip
PHOTO_RUNS = translations("photos/horse2zebra", PHOTO_ARMS, side=16, n_train=0, n_test=0, n_steps=3)


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    plt.close("all")


def value(experiment: str, seed: int, name: str) -> float:
    """The made-up score: another number for every experiment, seed and name, 0 .. 1."""
    return torch.rand((), generator=torch.Generator().manual_seed(hash_of(experiment, seed, name))).item()


def hash_of(*words: object) -> int:
    return zlib.crc32(json.dumps(words).encode())


def picture(experiment: str, seed: int, key: str) -> torch.Tensor:
    rng = torch.Generator().manual_seed(hash_of("picture", experiment, seed, key))
    channels = 1 if experiment.startswith("digits") else 3
    return torch.randint(0, 256, (16, channels, 16, 16), dtype=torch.uint8, generator=rng)


def made_up(run: Run, workspace: Workspace) -> Outcome:
    suffixes = [f"_{who}" for who in ("real", "other", "input")] if isinstance(run.config, AnchorsConfig) else [""]
    names = [f"{kind}{suffix}" for kind in KINDS for suffix in suffixes]
    if run.experiment == "anchors-scenes":
        names += [f"{kind}_majority" for kind in KINDS if kind.startswith("label")]
    scores = {
        name: Score(value(run.experiment, run.seed, name), math.nan, "share", True, 9, {"made": "up"}) for name in names
    }
    columns = ("adversarial_a", "adversarial_b", "cycle_a", "discriminator_b")
    history = [
        {"step": i, "rate": 1e-3, **{c: value(run.experiment, run.seed + i, c) for c in columns}} for i in (1, 2)
    ]
    weights = {key: picture(run.experiment, run.seed, key) for key in PICTURES}
    return Outcome(scores, history, weights)


def results_of(folder: Path, runs: Iterable[Run]) -> papers.Results:
    store, outcomes = Store(folder), []
    for run in runs:
        assert execute(run, made_up, store, Options()).ending in ("finished", "kept")
        outcomes.append((run, store.read(run)))
    return papers.Results(papers.load("cyclegan2017"), "laptop", store, outcomes)


@pytest.fixture(scope="module")
def planned() -> list[Run]:
    drawn = [run for run in plan("laptop", SEEDS) if isinstance(run.config, TranslationConfig | AnchorsConfig)]
    of_photos = [Run("cyclegan2017", name, "photos", config, seed, {}, 1)
                 for name, config in PHOTO_RUNS.items() for seed in range(SEEDS)]  # fmt: skip
    return drawn + of_photos


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, planned: list[Run]) -> papers.Results:
    return results_of(tmp_path_factory.mktemp("made up"), planned)


def without(results: papers.Results, *experiments: str) -> papers.Results:
    kept = [(run, None if run.experiment in experiments else outcome) for run, outcome in results.outcomes]
    return results._replace(outcomes=kept)


def text(experiment: str, name: str, digits: int) -> str:
    """What a cell must hold: mean ± sd over the seeds."""
    found = [value(experiment, seed, name) for seed in range(SEEDS)]
    return f"{statistics.mean(found):.{digits}f} ± {statistics.stdev(found):.{digits}f}"


# --- tables 2 to 5 -------------------------------------------------------------------------------------------------

REPORTED = {  # ../shared/papers/cyclegan2017.md, tables 2 to 5
    "table 2": {"CoGAN": ".40 / .10 / .06", "BiGAN/ALI": ".19 / .06 / .02", "SimGAN": ".20 / .10 / .04",
                "feature loss + GAN": ".06 / .04 / .01", "CycleGAN": ".52 / .17 / .11", "pix2pix": ".71 / .25 / .18",
                "real images": ".80 / .26 / .21"},
    "table 3": {"CoGAN": ".45 / .11 / .08", "BiGAN/ALI": ".41 / .13 / .07", "SimGAN": ".47 / .11 / .07",
                "feature loss + GAN": ".50 / .10 / .06", "CycleGAN": ".58 / .22 / .16", "pix2pix": ".85 / .40 / .32"},
    "table 4": {"cycle alone": ".22 / .07 / .02", "GAN alone": ".51 / .11 / .08",
                "GAN + forward cycle": ".55 / .18 / .12", "GAN + backward cycle": ".39 / .14 / .06",
                "CycleGAN": ".52 / .17 / .11"},
    "table 5": {"cycle alone": ".10 / .05 / .02", "GAN alone": ".53 / .11 / .07",
                "GAN + forward cycle": ".49 / .11 / .07", "GAN + backward cycle": ".01 / .06 / .01",
                "CycleGAN": ".58 / .22 / .16"},
}  # fmt: skip
# Row by row: which run fills it. "Forward" keeps the cycle of the direction's own input.
METHODS = {"CoGAN": "scenes-cogan", "BiGAN/ALI": "scenes-bigan", "SimGAN": "scenes-simgan",
           "feature loss + GAN": "scenes-feature", "CycleGAN": "scenes-cyclegan", "pix2pix": "scenes-pix2pix",
           "real images": "anchors-scenes", "random other scene": "anchors-scenes",
           "the input left as it is": "anchors-scenes"}  # fmt: skip
MAJORITY = "one map for all, each pixel's majority"
# Of label maps alone there is a majority; its row stands before the last.
METHODS_TO_LABEL = {**{name: METHODS[name] for name in list(METHODS)[:-1]}, MAJORITY: "anchors-scenes",
                    "the input left as it is": "anchors-scenes"}  # fmt: skip
SUFFIX = {"real images": "_real", "random other scene": "_other", "the input left as it is": "_input",
          MAJORITY: "_majority"}  # fmt: skip
FROM_MEMORY = {  # marked so in ../shared/papers/cyclegan2017.md
    "table 2": ["CoGAN", "BiGAN/ALI", "SimGAN", "feature loss + GAN"], "table 3": [],
    "table 4": ["GAN + backward cycle"], "table 5": ["cycle alone", "GAN + forward cycle"],
}  # fmt: skip
LOSSES = {"cycle alone": "scenes-cycle-alone", "GAN alone": "scenes-gan-alone"}
TO_PHOTO = {**LOSSES, "GAN + forward cycle": "scenes-cycle-labels", "GAN + backward cycle": "scenes-cycle-photos",
            "CycleGAN": "scenes-cyclegan"}  # fmt: skip
TO_LABEL = {**LOSSES, "GAN + forward cycle": "scenes-cycle-photos", "GAN + backward cycle": "scenes-cycle-labels",
            "CycleGAN": "scenes-cyclegan"}  # fmt: skip
WAYS = {"table 2": ("photo", METHODS), "table 3": ("label", METHODS_TO_LABEL), "table 4": ("photo", TO_PHOTO),
        "table 5": ("label", TO_LABEL)}  # fmt: skip


@pytest.mark.parametrize("name", WAYS)
def test_tables_hold_the_runs_numbers_beside_the_reported_ones(name, results):
    way, rows = WAYS[name]
    found = figures_scenes.table(results, name)
    assert list(found["images by"]) == list(rows)
    for _, line in found.iterrows():
        row = line["images by"]
        assert line["reported (theirs)"] == REPORTED[name].get(row, "–")
        for key, words in (("pixel", "pixel accuracy"), ("class", "class accuracy"), ("iou", "class IoU"),
                           ("information", "information")):  # fmt: skip
            assert line[words] == text(rows[row], f"{way}_{key}{SUFFIX.get(row, '')}", 2), (row, words)
        assert line["seeds"] == "3"


def test_which_cycle_is_forward():
    """The run "cycle-labels" keeps |F(G(a)) - a|, whose input is a label map."""
    configs = {run.experiment: run.config for run in plan("laptop", 1)}
    for way, rows in (("photo", TO_PHOTO), ("label", TO_LABEL)):
        assert {row.name: row.experiment for row in ABLATION_ROWS[way]} == rows
        forward = configs[rows["GAN + forward cycle"]]
        assert (forward.cycle_a, forward.cycle_b) == ((10, 0) if way == "photo" else (0, 10))


def test_a_table_leaves_out_what_was_not_run(results):
    found = figures_scenes.table(without(results, "scenes-cogan", "anchors-scenes"), "table 2")
    assert list(found["images by"]) == [name for name in METHODS if name != "CoGAN" and name not in SUFFIX]
    assert len(figures_scenes.table(without(results, *METHODS.values()), "table 2")) == 0
    one_seed = results._replace(outcomes=[(run, o) for run, o in results.outcomes if run.seed == 0])
    line = figures_scenes.table(one_seed, "table 3").iloc[4]
    assert (line["class IoU"], line["seeds"]) == (f"{value('scenes-cyclegan', 0, 'label_iou'):.2f}", "1")


def test_anchors_of_before_the_majority_was_scored_have_no_row_of_it(results):
    older = [(run, outcome._replace(scores={k: v for k, v in outcome.scores.items() if not k.endswith("_majority")}))
             for run, outcome in results.outcomes]  # fmt: skip
    found = figures_scenes.table(results._replace(outcomes=older), "table 3")
    assert list(found["images by"]) == list(METHODS)


@pytest.mark.parametrize("name", WAYS)
def test_the_caption_names_the_reported_rows_that_are_from_memory(name, results):
    """Those that the claims on the same rows say so of."""
    document = results.paper.document
    rows = {row.experiment: row.name for row in figures_scenes.TABLES[name][1]}
    claims = [claim for claim in document["claims"] if claim["where"] == name.capitalize()]
    recalled = [claim for claim in claims if "from memory" in claim["reported"].get("source", "")]
    said = [rows[claim["test"]["increasing"][0].partition(".")[0]] for claim in recalled]
    caption = figures_scenes.table_caption(results, name)
    assert sorted(said) == sorted(FROM_MEMORY[name])
    assert ("From memory" in caption) == bool(said)
    assert caption.endswith(f"the reported {', '.join(FROM_MEMORY[name])}." if said else "is what is judged.")


def test_the_caption_tells_the_runs_own_settings(results):
    caption = figures_scenes.table_caption(results, "table 5")
    config = next(run.config for run in plan("laptop", 1) if run.experiment == "scenes-cyclegan")
    assert caption.startswith("Table 5. Photographs to labels")
    assert (
        f"{config.n_test} scenes of {config.side} × {config.side}, {config.n_steps:,} steps of {config.batch};"
        in caption
    )
    assert "not comparable" in caption


def test_the_fooling_table(results):
    found = figures_scenes.fooling_table(results)
    rows = {**METHODS, **{name: TO_PHOTO[name] for name in list(TO_PHOTO)[:4]}}
    assert list(found["photographs by"]) == list(rows)
    columns = {"taken for real by the held-out discriminator": ("fooling", 3), "KID[scenes-fcn]": ("kid", 3),
               "told from real by a classifier": ("two_sample", 3), "diversity": ("diversity", 2)}  # fmt: skip
    for _, line in found.iterrows():
        row = line["photographs by"]
        for words, (key, digits) in columns.items():
            assert line[words] == text(rows[row], f"{key}_b{SUFFIX.get(row, '')}", digits), (row, words)


# --- figures of scenes ---------------------------------------------------------------------------------------------


def title_of(axis: Axes) -> str:
    """Wherever the style in use puts it."""
    return next((title for place in ("left", "center") if (title := axis.get_title(loc=place))), "")


def points(axis: Axes) -> list[np.ndarray]:
    return [np.asarray(collection.get_offsets()) for collection in axis.collections]


def test_a_dot_a_seed_stands_beside_its_methods_name(results):
    figure = figures_scenes.scores_by_row(results)
    left, right = figure.axes
    names = {
        round(tick): label.get_text() for tick, label in zip(left.get_yticks(), left.get_yticklabels(), strict=True)
    }
    assert title_of(left) == "labels to photographs"
    assert title_of(right) == "photographs to labels"
    for axis, way, rows in ((left, "photo", {**METHODS, **TO_PHOTO}), (right, "label", {**METHODS, **TO_LABEL})):
        found = points(axis)
        assert len(found) == 10
        for dots in found:
            name = names[round(dots[0, 1])]
            wanted = [value(rows[name], seed, f"{way}_iou") for seed in range(SEEDS)]
            assert dots[:, 0].tolist() == pytest.approx(wanted), (way, name)
        lines = sorted(line.get_xdata()[0] for line in axis.lines)
        anchors = [statistics.mean(value("anchors-scenes", s, f"{way}_iou_{who}") for s in range(SEEDS))
                   for who in ("real", "other")]  # fmt: skip
        assert lines == pytest.approx(sorted(anchors))
    fewer = figures_scenes.scores_by_row(without(results, "scenes-bigan", "anchors-scenes"))
    assert len(points(fewer.axes[0])) == 9
    assert not fewer.axes[0].lines


def shown(axis: Axes) -> np.ndarray:
    (image,) = axis.images
    return np.asarray(image.get_array())


def sheet(rows: list[torch.Tensor], n: int) -> np.ndarray:
    images = torch.cat([row[:n].expand(-1, 3, -1, -1) for row in rows])
    return image_sheet(images, n, pad_value=255).permute(1, 2, 0).numpy()


def test_round_trips_are_input_output_and_back_of_seed_0(results):
    left, right = figures_scenes.round_trips(results, "scenes-cyclegan").axes
    for axis, keys in ((left, ("a", "fake_b", "back_a")), (right, ("b", "fake_a", "back_b"))):
        assert np.array_equal(shown(axis), sheet([picture("scenes-cyclegan", 0, key) for key in keys], 8))
        assert [label.get_text() for label in axis.get_yticklabels()] == ["input", "output", "back"]
    assert title_of(left) == "labels to photographs and back"


@pytest.mark.parametrize(("rows", "way"), [(METHOD_ROWS, "photo"), (ABLATION_ROWS["label"], "label")])
def test_pictures_side_by_side_stand_beside_their_names(rows, way, results):
    given, made, truth = ("a", "fake_b", "b") if way == "photo" else ("b", "fake_a", "a")
    named = {row.name: row.experiment for row in rows if not row.suffix}
    for left_out in ((), ("scenes-feature", "scenes-gan-alone")):
        (axis,) = figures_scenes.side_by_side(without(results, *left_out), rows, way).axes
        kept = {name: experiment for name, experiment in named.items() if experiment not in left_out}
        assert [label.get_text() for label in axis.get_yticklabels()] == ["input", *kept, "truth"]
        first = next(iter(kept.values()))
        pictures = [picture(first, 0, given), *(picture(e, 0, made) for e in kept.values()), picture(first, 0, truth)]
        assert np.array_equal(shown(axis), sheet(pictures, 8))


def test_what_damage_does_stands_beside_what_it_is(results):
    figure = figures_scenes.hidden_code(results)
    for axis, domain, title in zip(
        figure.axes, "ba", ("photographs by way of label maps", "label maps by way of photographs"), strict=True
    ):
        assert title_of(axis) == title
        labels = [label.get_text() for label in axis.get_xticklabels()]
        for dots in points(axis):
            key = {"untouched": "cycle", "noise": "noise", "JPEG": "jpeg"}[labels[round(dots[:, 0].mean())]]
            wanted = [value("scenes-cyclegan", seed, f"{key}_{domain}") for seed in range(SEEDS)]
            assert dots[:, 1].tolist() == pytest.approx(wanted), (domain, key)
        assert len(points(axis)) == 3


def test_losses_of_both_domains_and_all_seeds_are_drawn(results):
    figure = figures_scenes.curves(results)
    titles = [title_of(axis) for axis in figure.axes]
    assert titles == ["adversarial", "cycle", "discriminator"]
    assert [len(axis.lines) for axis in figure.axes] == [2 * SEEDS, SEEDS, SEEDS]
    line = figure.axes[0].lines[1]
    assert line.get_ydata().tolist() == pytest.approx([value("scenes-cyclegan", i, "adversarial_b") for i in (1, 2)])
    assert line.get_linestyle() == "--"


# --- the other tasks -----------------------------------------------------------------------------------------------


def test_the_digit_table(results):
    found = figures_tasks.digit_table(results)
    rows = {"CycleGAN": ("digits-cyclegan", ""), "GAN alone": ("digits-gan-alone", ""),
            "real digits of the target, drawn at random (floor)": ("anchors-digits", "_real"),
            "the input left as it is": ("anchors-digits", "_input")}  # fmt: skip
    assert list(found["digits by"]) == [*rows, *rows]
    columns = {"read as the input's digit": ("same", 3), "information": ("information", 2),
               "FID[digits-cnn]": ("fid", 1), "KID[digits-cnn]": ("kid", 3)}  # fmt: skip
    for place, line in found.iterrows():
        way = "b" if place < 4 else "a"
        assert line["direction"] == {"b": "MNIST to UCI", "a": "UCI to MNIST"}[way]
        experiment, suffix = rows[line["digits by"]]
        for words, (key, digits) in columns.items():
            assert line[words] == text(experiment, f"{key}_{way}{suffix}", digits)


def test_shifts_of_light_without_and_with_the_identity_loss(results):
    figure = figures_tasks.light_shifts(results)
    for axis, way, title in zip(
        figure.axes, "ba", ("paintings to photographs", "photographs to paintings"), strict=True
    ):
        assert title_of(axis) == title
        labels = [label.get_text() for label in axis.get_xticklabels()]
        assert labels == ["without identity loss", "with identity loss"]
        for dots, experiment in zip(points(axis), ("paintings-plain", "paintings-identity"), strict=True):
            assert set(dots[:, 0]) == {labels.index("with identity loss") if "identity" in experiment else 0}
            assert dots[:, 1].tolist() == pytest.approx([value(experiment, s, f"shift_{way}") for s in range(SEEDS)])


def test_the_shape_table(results):
    found = figures_tasks.shape_table(results)
    rows = {"CycleGAN": ("shapes-cyclegan", ""), "real shapes of the target": ("anchors-shapes", "_real"),
            "the input left as it is": ("anchors-shapes", "_input")}  # fmt: skip
    columns = {"colour of the target": "recoloured", "outline of the target": "reshaped",
               "outline of the input's kind": "outline_kept",
               "IoU with the input's outline": "outline_iou"}  # fmt: skip
    assert list(found["images by"]) == [*rows, *rows]
    for place, line in found.iterrows():
        way = "b" if place < 3 else "a"
        assert line["direction"] == {"b": "discs to triangles", "a": "triangles to discs"}[way]
        experiment, suffix = rows[line["images by"]]
        for words, key in columns.items():
            assert line[words] == text(experiment, f"{key}_{way}{suffix}", 2)


def test_pairs_of_pictures(results):
    arms = [("digits-cyclegan", "CycleGAN"), ("digits-gan-alone", "GAN alone")]
    keys = ("a", "fake_b", "back_a", "b", "fake_a", "back_b")
    figure = figures_tasks.pairs(results, arms, keys, 10)
    for axis, (experiment, words) in zip(figure.axes, arms, strict=True):
        assert title_of(axis) == words
        assert np.array_equal(shown(axis), sheet([picture(experiment, 0, key) for key in keys], 10))
    (axis,) = figures_tasks.pairs(without(results, "digits-cyclegan"), arms, keys, 10).axes
    assert title_of(axis) == "GAN alone"


def test_photographs_stand_beside_their_floor(results):
    assert figures_tasks.photo_experiments(results) == [name for name in PHOTO_RUNS if not name.startswith("anchors")]
    found = figures_tasks.photo_table(results)
    assert list(found["experiment"]) == 6 * ["photos-horse2zebra-cyclegan"] + 6 * ["photos-horse2zebra-identity"]
    assert list(found["into"]) == 2 * ["B", "B", "B", "A", "A", "A"]
    suffixes = {"made": "", "real training images (floor)": "_real", "the input left as it is": "_input"}
    assert list(found["images"]) == 4 * list(suffixes)
    for _, line in found.iterrows():
        suffix = suffixes[line["images"]]
        experiment = "anchors-photos-horse2zebra" if suffix else line["experiment"]
        for key in ("fid", "kid"):
            name = f"{key}_{line['into'].lower()}{suffix}"
            assert line[f"{key.upper()}[efficientnet-lite0]"] == text(experiment, name, 3)
    drawn = without(results, *PHOTO_RUNS)
    assert figures_tasks.photo_experiments(drawn) == []
    assert len(figures_tasks.photo_table(drawn)) == 0


def test_other_peoples_photo_scores_are_told_with_their_setting(results):
    found = figures_tasks.reported_photos(results)
    assert len(found) > 5
    with_identity = found[(found["data"] == "horse to zebra") & (found["fid"] == "62.1")]
    without_it = found[(found["data"] == "horse to zebra") & (found["fid"] == "77.2")]
    assert all("identity .5" in setting for setting in with_identity["setting"])
    assert len(with_identity) > 0
    assert len(without_it) > 0
    assert all("no identity" in setting for setting in without_it["setting"])
    assert not found.isna().any().any()
    assert not found["source"].str.contains("OMGD|Slimming").any(), "those are of compressed networks"
