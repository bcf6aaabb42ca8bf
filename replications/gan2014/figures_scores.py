"""Tables and figures of the scores, drawn from finished runs: Parzen windows, FID and its kin, AIS, memorisation."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from lib.claims import Reading
from lib.execution.runs import Finished
from lib.metrics import metric_name
from lib.reporting.tables import number
from replications.gan2014.config import BaselinesConfig
from replications.papers import Results

GANS = {
    "digits-simultaneous": "adversarial nets, simultaneous updates (the authors' code)",
    "digits-alternating": "adversarial nets, alternating updates (Algorithm 1)",
}
SOURCES = {
    "real": "real training images",
    "kmeans": "k-means centres",
    "ppca": "probabilistic PCA, means",
    "mean": "the mean training image",
    "noise": "uniform noise",
}
METRICS = {
    "fid": ("FID", 2),
    "is": ("IS", 2),
    "kid": ("KID", 3),
    "precision": ("precision", 3),
    "recall": ("recall", 3),
}
VAE = "aevb-nz20"  # the run of vae2013 whose samples stand in the Parzen table
VAE_SOURCE = "variational autoencoder (vae2013), decoder means"


class Row(NamedTuple):
    """One source of images and one score of it over the seeds that finished."""

    source: str
    reading: Reading
    protocol: Mapping[str, Any]
    n: int  # items behind one seed's value

    @property
    def error(self) -> tuple[float, str]:
        """The spread over seeds where there are several that differ, else the run's own error; and its name."""
        if not math.isclose(min(self.reading.values), max(self.reading.values), rel_tol=1e-6):
            return self.reading.spread, "sd over seeds"
        return self.reading.stderrs[0], "s.e. over test images"


class ReadingOfVae(NamedTuple):
    """The VAE's row: absent where its paper has no finished run at this preset, or none with the score."""

    row: Row | None
    why: str


class QualityTable(NamedTuple):
    """One data set's scores under one protocol. slug: the end of an exhibit's identifier."""

    slug: str
    caption: str
    frame: pd.DataFrame


def read_row(found: Sequence[Finished], score: str, source: str) -> Row | None:
    """A score over finished runs of one experiment; None where no run has it."""
    scores = [outcome.scores[score] for outcome in found if score in outcome.scores]
    if not scores:
        return None
    reading = Reading(tuple(s.value for s in scores), tuple(s.stderr for s in scores), scores[0].unit)
    return Row(source, reading, scores[0].protocol, scores[0].n)


def digits(results: Results) -> str:
    """The data set of the digit GANs, and so of the baselines that stand beside them."""
    return str(results.planned("digits-simultaneous").config.data)


def baselines(results: Results, data: str) -> list[Finished]:
    """The finished baseline runs on a data set."""
    return [o for o in results.finished() if isinstance(o.run.config, BaselinesConfig) and o.run.config.data == data]


def parzen_rows(results: Results, vae_results: Results | None) -> list[Row]:
    """What was measured by a Parzen window: both GANs, the model chosen and the last; every source; the VAE if any."""
    rows = [
        read_row(results.finished(name), score, f"{label}{suffix}")
        for name, label in GANS.items()
        for score, suffix in (("parzen_test", ""), ("parzen_last", "; after the last epoch"))
    ]
    rows += [read_row(baselines(results, digits(results)), f"parzen_{key}", label) for key, label in SOURCES.items()]
    rows.append(read_vae(results, vae_results).row)
    return [row for row in rows if row is not None]


def read_vae(results: Results, vae_results: Results | None) -> ReadingOfVae:
    """The Parzen score of vae2013's samples; with why it is absent, or on other images."""
    if vae_results is None or not vae_results.finished(VAE):
        return ReadingOfVae(None, "not computed: vae2013 has no finished run at this preset")
    found = vae_results.finished(VAE)
    row = read_row(found, "parzen_test", VAE_SOURCE)
    if row is None:
        return ReadingOfVae(None, "not computed: the runs of vae2013 have no Parzen score")
    if (other := found[0].run.config.data) != digits(results):
        return ReadingOfVae(None, f"not computed: the runs of vae2013 are on {other}")
    return ReadingOfVae(row, "")


def vae_fid(results: Results, vae_results: Results | None, others: Iterable[Row]) -> Row | None:
    """The FID of the same samples of vae2013; None where there is none, or not of `others`' protocol."""
    if vae_results is None or read_vae(results, vae_results).row is None:
        return None
    row = read_row(vae_results.finished(VAE), "fid", VAE_SOURCE)
    alike = ("extractor", "weights", "data_sha256", "generated", "real")
    same = row is not None and all(row.protocol[key] == other.protocol[key] for other in others for key in alike)
    return row if same else None


def parzen_table(results: Results, vae_results: Results | None) -> pd.DataFrame:
    """Table 1's MNIST column: rows as reported, then what was measured here by the same protocol."""
    rows = [
        {
            "samples of": row["model"],
            "nats/image": number(row["value"], 1, row["stderr"]),
            "±": "s.e. over test images",
            "seeds": "–",
            "σ": "–",
            "samples": "–",
            "whose number": "reported, table 1",
        }
        for row in results.paper.document["reported_table_1"]
    ]
    for row in parzen_rows(results, vae_results):
        error, kind = row.error
        rows.append(
            {
                "samples of": row.source,
                "nats/image": number(row.reading.mean, 1, error),
                "±": kind,
                "seeds": str(len(row.reading.values)),
                "σ": f"{row.protocol['sigma']:.4f}",
                "samples": f"{row.protocol['samples']:,}",
                "whose number": f"measured, {row.protocol.get('data', digits(results))}",
            }
        )
    if why := read_vae(results, vae_results).why:
        rows.append(dict.fromkeys(rows[0], "–") | {"samples of": "variational autoencoder", "whose number": why})
    return pd.DataFrame(rows)


def parzen_protocol(results: Results) -> str:
    """The Parzen protocol in one sentence, from the scores themselves."""
    score = baselines(results, digits(results))[0].scores["parzen_real"]
    low, high = score.protocol["grid"][0], score.protocol["grid"][-1]
    return (
        f"Mean Parzen-window log-likelihood of {score.n:,} test images of {score.protocol['data']}; kernel width σ "
        f"chosen among {len(score.protocol['grid'])} values from {low:g} to {high:g} on "
        f"{score.protocol['validation']:,} validation images (shown for the first seed). Real images are as many as "
        "the training set has, where it has fewer than the other sources have samples."
    )


def parzen_figure(results: Results, vae_results: Results | None) -> Figure:
    """The Parzen score beside the FID of the same sources: left better to the right, right better to the left.

    Uniform noise, far outside either axis, is left to the tables.
    """
    rows = sorted(
        (r for r in parzen_rows(results, vae_results) if r.source != SOURCES["noise"] and "last epoch" not in r.source),
        key=lambda r: r.reading.mean,
    )
    fids = {row.source: row for row in score_rows(results, "fid", digits(results))}
    if vae := vae_fid(results, vae_results, fids.values()):
        fids[vae.source] = vae
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.6, 0.42 * len(rows) + 1.2), sharey=True, layout="constrained")
    ours, beside = sns.color_palette()[:2]
    for place, row in enumerate(rows):
        for axis, found in ((left, row), (right, fids.get(row.source))):
            if found is None:
                axis.annotate("not measured", (0.04, place), xycoords=("axes fraction", "data"), va="center")
                continue
            colour = ours if row.source in GANS.values() else beside
            error = found.error[0]
            spread = None if math.isnan(error) else error
            axis.errorbar(found.reading.mean, place, xerr=spread, fmt="o", color=colour, capsize=3)
            axis.annotate(
                number(found.reading.mean, 1 if axis is left else 2), (found.reading.mean, place), (0, 6),
                textcoords="offset points", ha="center", fontsize="small",
            )  # fmt: skip
    for axis, found in ((left, {r.source: r for r in rows}.get(SOURCES["real"])), (right, fids.get(SOURCES["real"]))):
        if found is not None:
            axis.axvline(found.reading.mean, color="0.4", linestyle="--", linewidth=1, zorder=0)
    left.set(title="Parzen window", xlabel="nats per image (higher is better)")
    left.set_yticks(range(len(rows)), [row.source.replace(" updates (", " updates\n(") for row in rows])
    left.set_ylim(-0.6, len(rows) - 0.4)
    left.margins(x=0.12)
    name = next(iter(fids.values())).protocol["extractor"] if fids else "no extractor"
    right.set(title=metric_name("FID", name), xlabel="log axis (lower is better)")
    if fids:
        right.set_xscale("log")
        right.margins(x=0.15)
    return figure


def score_rows(results: Results, metric: str, data: str) -> list[Row]:
    """One quality score of the baselines' sources and of every other experiment on a data set that has it."""
    found = baselines(results, data)
    rows = [read_row(found, f"{metric}_{key}", label) for key, label in SOURCES.items()]
    groups: dict[str, list[Finished]] = defaultdict(list)
    for outcome in results.finished():
        if metric in outcome.scores and getattr(outcome.run.config, "data", None) == data:
            groups[outcome.run.experiment].append(outcome)
    rows += [read_row(group, metric, GANS.get(name, name)) for name, group in groups.items()]
    return [row for row in rows if row is not None]


def quality_tables(results: Results) -> list[QualityTable]:
    """FID, IS, KID, precision and recall: one table for each data set, extractor and pair of counts, best FID first."""
    tables, seen = [], dict.fromkeys(getattr(o.run.config, "data", "") for o in results.finished())
    for data in seen:
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in score_rows(results, "fid", data):
            groups[tuple(row.protocol[key] for key in ("extractor", "weights", "generated", "real"))].append(row)
        for place, (key, rows) in enumerate(groups.items()):
            slug = f"{data}-{place + 1}" if place else data
            tables.append(QualityTable(slug, _quality_caption(data, key), _quality_frame(results, data, rows)))
    return tables


def _quality_frame(results: Results, data: str, fids: Sequence[Row]) -> pd.DataFrame:
    extractor = fids[0].protocol["extractor"]
    found = {metric: {row.source: row for row in score_rows(results, metric, data)} for metric in METRICS}
    rows = []
    for fid in sorted(fids, key=lambda row: row.reading.mean):
        row = {"images of": fid.source, "seeds": str(len(fid.reading.values))}
        for metric, (name, places) in METRICS.items():
            reading = found[metric][fid.source].reading
            row[metric_name(name, extractor)] = number(reading.mean, places, reading.spread)
        rows.append(row)
    return pd.DataFrame(rows)


def _quality_caption(data: str, key: tuple[Any, ...]) -> str:
    extractor, weights, generated, real = key
    return (
        f"{data}: {generated:,} generated against {real:,} real images that no model was trained on; features of "
        f"{extractor}, weights {weights[:12]}. ± is the standard deviation over seeds; best FID first. Real training "
        "images are the floor: no source should be much below. Precision and recall count three nearest neighbours."
    )


def left_out(results: Results) -> str:
    """Why some runs have no quality scores, one sentence each; empty where all have them."""
    facts = {o.record.get("facts", {}).get("quality_left_out"): o.run.config.data for o in results.finished()
             if "quality_left_out" in o.record.get("facts", {})}  # fmt: skip
    return " ".join(f"Left out for {data}: {reason}." for reason, data in facts.items())


def reported_quality_table(results: Results) -> pd.DataFrame:
    """Numbers of other papers, under their own protocols: they stand in no table with ours."""
    rows = [
        {
            "model": row["model"],
            "data": row["data"],
            "score": row["metric"],
            "value": number(row["value"], row["digits"], row.get("spread", math.nan)),
            "whose number": row["source"],
        }
        for row in results.paper.document["reported_quality"]
    ]
    return pd.DataFrame(rows)


def ais_table(results: Results) -> pd.DataFrame:
    """Log-likelihoods of dequantised digits: the GANs by AIS, PCA exactly, and the rows of Wu et al. as theirs."""
    rows = []
    for name, label in GANS.items():
        value = read_row(results.finished(name), "ais_test", label)
        gap = read_row(results.finished(name), "ais_bdmc_gap", label)
        if value is None or gap is None:
            rows.append(_ais_row(label, "not computed at this preset"))
            continue
        steps = f"{value.protocol['n_distributions']:,} × {value.protocol['n_chains']}"
        cells = _ais_cells(value) | {"BDMC gap": number(gap.reading.mean, 1), "distributions × chains": steps}
        rows.append(_ais_row(label, "measured", "lower bound, AIS", cells))
    for score, which in (("exact_ppca_first", ", the same images"), ("exact_ppca", "")):
        exact = read_row(baselines(results, digits(results)), score, "probabilistic PCA")
        if exact is not None:
            label = f"{exact.source}, {exact.protocol['factors']} factors{which}"
            rows.append(_ais_row(label, "measured", "exact", _ais_cells(exact)))
    for row in results.paper.document["reported_ais"]:
        cells = {
            "nats/image": number(row["ais_test"], 1),
            "s.e. over images": number(row["stderr"], 1),
            "test images": "1,000",
            "BDMC gap": number(row["bdmc_gap"], 2),
            "distributions × chains": "10,000 × 16",
        }
        rows.append(_ais_row(row["model"], "Wu et al. 2017", "lower bound, AIS", cells))
    return pd.DataFrame(rows)


def _ais_cells(row: Row) -> dict[str, str]:
    stderrs = row.reading.stderrs
    return {
        "nats/image": number(row.reading.mean, 1),
        "s.e. over images": number(math.fsum(stderrs) / len(stderrs), 1),
        "sd over seeds": number(row.reading.spread, 1),
        "test images": f"{row.n:,}",
        "σ": f"{row.protocol['sigma']:g}" if "sigma" in row.protocol else "–",
    }


def _ais_row(model: str, whose: str, what: str = "–", cells: Mapping[str, str] | None = None) -> dict[str, str]:
    columns = (
        "nats/image",
        "s.e. over images",
        "sd over seeds",
        "test images",
        "BDMC gap",
        "distributions × chains",
        "σ",
    )
    return {"model": model, "what it is": what, **dict.fromkeys(columns, "–"), **(cells or {}), "whose number": whose}


def memorisation_table(results: Results) -> pd.DataFrame:
    """Nearest training against nearest test image: the GANs, unseen real images, and copies of training images."""
    anchors = {"heldout": "real images held out of training", "copies": "copies of training images"}
    found = baselines(results, digits(results))
    groups = [(results.finished(name), "", label) for name, label in GANS.items()]
    groups += [(found, f"_{key}", label) for key, label in anchors.items()]
    rows = []
    for outcomes, suffix, label in groups:
        ratio, share, nearest = (
            read_row(outcomes, f"{name}{suffix}", label)
            for name in ("distance_ratio", "share_nearer_train", "nearest_train")
        )
        if ratio is None or share is None:
            continue
        rows.append(
            {
                "images": label,
                "seeds": str(len(ratio.reading.values)),
                "median ratio, train / test": number(ratio.reading.mean, 3, ratio.reading.spread),
                "share nearer to train": number(share.reading.mean, 3, share.reading.spread),
                "distance to nearest of all train": "–" if nearest is None else number(nearest.reading.mean, 2),
                "train = test images": f"{ratio.protocol.get('train', 0):,}",
            }
        )
    return pd.DataFrame(rows)
