"""What a number was made with: the digest of the sources moves with them, and only with them."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from lib.training import provenance
from lib.training.provenance import commit, peak_memory_bytes, source_digest, stable_provenance


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    files = {
        "lib/a.py": "A = 1\n",
        "lib/deep/b.py": "B = 2\n",
        "replications/toy2000/train.py": "STEPS = 3\n",
        "replications/toy2000/claims.yaml": "claims: []\n",
        "replications/toy2000/README.md": "words\n",
        "replications/other2001/train.py": "STEPS = 4\n",
        "data/registry.yaml": "datasets: {}\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    source_digest.cache_clear()
    yield tmp_path
    source_digest.cache_clear()


def digest() -> str:
    source_digest.cache_clear()
    return source_digest("toy2000")


@pytest.mark.parametrize("name", ["lib/a.py", "lib/deep/b.py", "replications/toy2000/train.py", "data/registry.yaml"])
def test_the_digest_moves_with_a_source(tree: Path, name: str) -> None:
    before = digest()
    (tree / name).write_text((tree / name).read_text() + " ")
    assert digest() != before


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: (tree / "lib" / "c.py").write_text(""),
        lambda tree: (tree / "lib" / "deep" / "b.py").rename(tree / "lib" / "b.py"),
        lambda tree: (tree / "lib" / "deep" / "b.py").unlink(),
    ],
    ids=["new file", "moved file", "lost file"],
)
def test_the_digest_moves_with_names(tree: Path, change: Callable[[Path], object]) -> None:
    before = digest()
    change(tree)
    assert digest() != before


@pytest.mark.parametrize("name", ["replications/other2001/train.py", "replications/toy2000/README.md", "lib/a.pyc"])
def test_the_digest_stays_with_all_else(tree: Path, name: str) -> None:
    before = digest()
    (tree / name).write_text("changed")
    assert digest() == before


def test_papers_have_digests_of_their_own(tree: Path) -> None:
    assert digest() != source_digest("other2001")


def test_commit_is_unknown_outside_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit.__wrapped__() == "unknown"


def test_stable_provenance_is_stable_and_says_what_moves_bits() -> None:
    first = stable_provenance("vae2013", torch.device("cpu"))
    assert first == stable_provenance("vae2013", torch.device("cpu"))
    assert json.loads(json.dumps(first)) == first  # as it stands in results.json
    assert first["threads"] == torch.get_num_threads()
    assert first["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert first["versions"].keys() >= {"numpy", "scipy", "torchvision", "scikit-learn"}
    assert (first["device_type"], first["cuda"], first["tf32"]) == ("cpu", None, False)
    assert first["device"]
    assert len(first["source_sha256"]) == 64


def test_provenance_tells_thread_counts_apart() -> None:
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert stable_provenance("vae2013", torch.device("cpu"))["threads"] == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_peak_memory_is_in_bytes() -> None:
    assert 50e6 < peak_memory_bytes() < 1e12  # torch alone takes 100 MB; in kilobytes this would be far less


CPUINFO = """processor\t: 0
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC

processor\t: 1
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 17
model name\t: AMD EPYC
flags\t\t:
"""
BOARD = "processor\t: 0\nBogoMIPS\t: 243.75\nCPU implementer\t: 0x41\n"


def test_processors_of_one_name_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_cpuinfo", CPUINFO.splitlines)
    assert provenance.processor() == "AuthenticAMD family 25 model 17"
    monkeypatch.setattr(provenance, "_cpuinfo", CPUINFO.replace("25", "26").splitlines)
    assert provenance.processor() == "AuthenticAMD family 26 model 17"


@pytest.mark.parametrize("text", [BOARD, ""])
def test_a_machine_that_does_not_say_its_family_is_named_as_python_names_it(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_cpuinfo", text.splitlines)
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "aarch64")
    assert provenance.processor() == "aarch64"
