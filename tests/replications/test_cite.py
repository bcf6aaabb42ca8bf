"""`regen cite` as a user meets it: what is listed, how one exhibit is cited, and what is said of a file."""

import hashlib
import json
import sys
from pathlib import Path

import pytest

from replications import papers
from replications.__main__ import main

LAPTOP, PAPER = b"<svg><path d='M 0 0'/></svg>", b"<svg><path d='M 1 1'/></svg>"


def publish(root: Path, preset: str, *records: dict) -> None:
    folder, exhibits = root / preset / "figures", []
    for record in records:
        for name, content in record["files"].items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in record["files"].items()}
        exhibits.append({"kind": "figure", "alt": "", "shows_data": False} | record | {"files": digests})
    (folder / "exhibits.json").write_text(json.dumps({"schema": 1, "exhibits": exhibits}))


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("published")
    figure = {"identifier": "vae2013/figure-2", "caption": "Bound by updates. More below."}
    spanning = {
        "identifier": "summary/table-fid",
        "kind": "table",
        "caption": "All models.",
        "files": {"summary/table-fid.csv": b"model,FID\nGAN,7\n"},
        "protocol": {"features": "digits-cnn", "n_real": 1000},
        "made_from": {"finished_on": "2026-11-25", "runs": ["0a3b", "fcbc"], "devices": []},
    }
    publish(root, "laptop", figure | {"files": {"vae2013/figure-2.svg": LAPTOP}}, spanning)
    publish(root, "paper", figure | {"files": {"vae2013/figure-2.svg": PAPER}})
    return root


@pytest.fixture
def regen(published, monkeypatch, capsys):
    """Run the command in this process: its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["regen", "cite", *map(str, arguments), "--out", str(published)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return ended.value.code or 0, said.out, said.err

    return run


def test_the_list_names_each_preset(regen):
    code, out, _ = regen()
    assert code == 0
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["summary/table-fid", "laptop", "table"],
        ["vae2013/figure-2", "laptop", "figure"],
        ["vae2013/figure-2", "paper", "figure"],
    ]
    assert len(regen("--preset", "paper")[1].splitlines()) == 1


def test_one_exhibit_at_all_presets_or_one(regen):
    _, out, _ = regen("vae2013/figure-2")
    for preset, content in (("laptop", LAPTOP), ("paper", PAPER)):
        assert f"vae2013/figure-2 (figure, preset {preset})" in out
        assert f"{preset}/figures/vae2013/figure-2.svg\n  sha256 {hashlib.sha256(content).hexdigest()}\n" in out
        assert f"@misc{{regen-vae2013-figure-2-{preset}," in out
    assert out.endswith(papers.load("vae2013").document["bibtex"])
    _, alone, _ = regen("vae2013/figure-2", "--preset", "paper")
    assert "preset paper" in alone
    assert "preset laptop" not in alone
    assert papers.load("vae2013").document["title"] in alone


def test_what_spans_papers_has_no_paper(regen):
    code, out, _ = regen("summary/table-fid")
    assert code == 0
    assert "\nprotocol:\n  features: digits-cnn\n  n_real: 1000\n" in out
    assert '\nmade from:\n  finished_on: 2026-11-25\n  runs: ["0a3b", "fcbc"]\n' in out
    assert "devices" not in out, "it says nothing"
    assert out.count("@") == 1
    assert "arXiv" not in out


def test_bibtex_alone(regen):
    _, out, _ = regen("vae2013/figure-2", "--bibtex", "--preset", "laptop")
    assert out.startswith("@misc{regen-vae2013-figure-2-laptop,\n")
    assert out.endswith("\n}\n")
    assert out.count("@") == 1
    assert regen("vae2013/figure-2", "--bibtex")[1].count("@misc{") == 2


def test_verify_answers_by_its_exit_code(regen, published, tmp_path):
    same, other = tmp_path / "same.svg", tmp_path / "other.svg"
    same.write_bytes(PAPER)
    other.write_bytes(PAPER.replace(b"1 1", b"2 2"))
    code, out, err = regen("vae2013/figure-2", "--verify", same)
    assert (code, err) == (0, "")
    assert out.startswith(f"{same} is {published}/paper/figures/vae2013/figure-2.svg, byte for byte (sha256 ")
    code, out, _ = regen("vae2013/figure-2", "--verify", same, "--preset", "laptop")
    assert code == 1
    assert "preset paper" in out
    code, out, _ = regen("vae2013/figure-2", "--verify", other)
    assert code == 1
    assert len(out.splitlines()) == 1
    assert out.count("1 path element differs") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vae2013/figure-3"], "no figure or table 'vae2013/figure-3'"),
        (["summary/table-fid", "--preset", "paper"], "not published at the preset 'paper': give --preset laptop"),
        (["--preset", "smoke"], "There are figures of the presets laptop, paper."),
        (["--bibtex"], "Say of which: `regen cite ID --bibtex`."),
        (["--verify", "x.svg"], "Say of which: `regen cite ID --verify FILE`."),
        (["vae2013/figure-2", "--verify", "/nonexistent.svg"], "There is no file /nonexistent.svg"),
        (["vae2013/figure-2", "--verify", __file__], "is published as .svg. Give a file that ends so."),
        (["vae2013/figure-2", "--verify", "x.svg", "--bibtex"], "two commands"),
    ],
)
def test_wrong_input_gets_one_sentence_and_code_2(regen, arguments, sentence):
    code, out, err = regen(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert len(err.splitlines()) == 1
