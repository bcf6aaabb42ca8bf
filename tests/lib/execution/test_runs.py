"""What makes two runs the same run, and whether a byte of a finished one changed."""

import math
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lib.errors import UserError
from lib.execution.execute import Compute, Options, execute
from lib.execution.runs import Failed, Finished, Run, Store, damage, history_csv
from lib.execution.workspace import Diverged, Outcome, Workspace

MakeRun = Callable[..., Run]
FILES = ["SHA256SUMS", "history.csv", "results.json", "run.json", "samples.png", "weights.safetensors"]


def test_pinned_fingerprint(toy_run: MakeRun) -> None:
    """Published runs are cited by theirs: a change of this one orphans them all."""
    assert toy_run().fingerprint == "254ba2b40bd6578098f4c3b56e6a44afe017394aedf5fd70af3c18d8399b0cd1"


@pytest.mark.parametrize(
    "change",
    [
        {"paper": "toy2001"},
        {"experiment": "other"},
        {"config": {"width": 4}},
        {"config": {"rates": (0.1, 0.2000000001)}},
        {"seed": 1},
        {"data": {"digits": "e" * 64}},
        {"data": {"other": "d" * 64}},
        {"data": {}},
        {"algorithm_version": 2},
    ],
    ids=str,
)
def test_all_that_decides_numbers_is_in_the_fingerprint(toy_run: MakeRun, change: dict[str, Any]) -> None:
    assert toy_run(**change).fingerprint != toy_run().fingerprint


def test_the_presets_name_is_not_in_the_fingerprint(toy_run: MakeRun) -> None:
    assert toy_run(preset="paper").fingerprint == toy_run().fingerprint


def test_the_order_of_data_sets_is_not_in_the_fingerprint(toy_run: MakeRun) -> None:
    one, other = toy_run(data={"a": "1", "b": "2"}), toy_run(data={"b": "2", "a": "1"})
    assert one.fingerprint == other.fingerprint


def test_name_is_what_a_reader_calls_it(toy_run: MakeRun) -> None:
    assert toy_run(seed=7).name == "toy2000 smoke toy seed 7"


class TestStates:
    def test_missing(self, store: Store, toy_run: MakeRun) -> None:
        assert store.state(toy_run()) == "missing"
        assert store.read(toy_run()) is None

    def test_begun(self, store: Store, toy_run: MakeRun) -> None:
        store.begun_folder(toy_run()).mkdir(parents=True)
        assert store.state(toy_run()) == "begun"
        assert store.read(toy_run()) is None

    def test_all_begun_are_found_and_no_other(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        assert store.begun() == set()
        begun = [toy_run(seed=1), toy_run(seed=2, paper="toy2001")]
        for run in begun:
            store.begun_folder(run).mkdir(parents=True)
        execute(toy_run(), toy, store, Options())
        assert store.begun() == {run.fingerprint for run in begun}

    def test_finished(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        execute(toy_run(), toy, store, Options())
        assert store.state(toy_run()) == "finished"
        outcome = store.read(toy_run())
        assert isinstance(outcome, Finished)
        assert sorted(path.name for path in outcome.folder.iterdir()) == FILES
        assert outcome.record["facts"] == {"width": 3}
        assert outcome.provenance["config"] == {"width": 3, "rates": [0.1, 0.2]}
        assert outcome.record["provenance"]["threads"] == 1
        score = outcome.scores["level"]
        history = outcome.history()
        assert score.value == pytest.approx(sum(row["level"] for row in history) / 4, rel=1e-14)
        assert math.isnan(score.stderr)
        assert [row["samples"] for row in history] == [0, 1, 2, 3]

    def test_failed(self, store: Store, toy_run: MakeRun) -> None:
        def diverge(run: Run, workspace: Workspace) -> Outcome:
            raise Diverged("The bound became nan.", 4, [{"samples": 1, "level": -2.5}])

        execute(toy_run(), diverge, store, Options())
        assert store.state(toy_run()) == "failed"
        outcome = store.read(toy_run())
        assert outcome == Failed(toy_run(), store.folder(toy_run()), "The bound became nan.", 4)

    def test_damaged(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        execute(toy_run(), toy, store, Options())
        (store.folder(toy_run()) / "history.csv").write_text("")
        assert store.state(toy_run()) == "damaged"
        with pytest.raises(UserError, match=r"toy2000 smoke toy seed 0 is damaged \(history\.csv .*`regen run toy2000"):
            store.read(toy_run())

    def test_read_all_keeps_the_order(self, store: Store, toy_run: MakeRun, toy: Compute) -> None:
        execute(toy_run(seed=1), toy, store, Options())
        first, second = store.read_all([toy_run(), toy_run(seed=1)])
        assert first is None
        assert isinstance(second, Finished)


@pytest.fixture
def folder(store: Store, toy_run: MakeRun, toy: Compute) -> Path:
    execute(toy_run(), toy, store, Options())
    return store.folder(toy_run())


class TestDamage:
    def test_none_on_a_whole_folder(self, folder: Path) -> None:
        assert damage(folder) is None

    @pytest.mark.parametrize("name", FILES[1:])
    def test_a_flipped_bit_is_found_and_its_file_named(self, folder: Path, name: str) -> None:
        whole = (folder / name).read_bytes()
        choose = random.Random(name)
        for bit in [0, 8 * len(whole) - 1, *(choose.randrange(8 * len(whole)) for _ in range(5))]:
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << bit % 8
            (folder / name).write_bytes(broken)
            assert damage(folder) == f"{name} does not have the digest it was written with"
        (folder / name).write_bytes(whole)
        assert damage(folder) is None

    def test_a_flipped_bit_in_the_list_is_found(self, folder: Path) -> None:
        whole = (folder / "SHA256SUMS").read_bytes()
        silent = []
        for bit in range(8 * len(whole)):
            broken = bytearray(whole)
            broken[bit // 8] ^= 1 << bit % 8
            (folder / "SHA256SUMS").write_bytes(broken)
            if damage(folder) is None:
                silent.append((bit // 8, bytes(broken[bit // 8 - 4 : bit // 8 + 5])))
        assert silent == []

    @pytest.mark.parametrize("name", FILES)
    def test_a_deleted_file_is_found_and_named(self, folder: Path, name: str) -> None:
        (folder / name).unlink()
        assert (damage(folder) or "").startswith(f"{name} is missing")

    @pytest.mark.parametrize("content", ["", "\n", "no digest\n", "\0\xff"])
    def test_a_list_without_sense_is_found(self, folder: Path, content: str) -> None:
        (folder / "SHA256SUMS").write_text(content)
        assert "SHA256SUMS" in (damage(folder) or "")

    def test_set_aside_says_what_was_wrong_and_keeps_the_evidence(
        self, store: Store, folder: Path, toy_run: MakeRun
    ) -> None:
        (folder / "results.json").write_text("{}")
        assert store.set_aside_damaged(toy_run()) == "results.json does not have the digest it was written with"
        assert store.state(toy_run()) == "missing"
        assert (folder.with_name(folder.name + ".damaged") / "results.json").read_text() == "{}"

    @pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils are not installed")
    def test_sha256sum_agrees(self, folder: Path) -> None:
        def check() -> subprocess.CompletedProcess[str]:
            command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True)

        sound = check()
        assert sound.returncode == 0, sound.stderr
        assert sound.stdout.splitlines() == [f"{name}: OK" for name in FILES[1:]]
        (folder / "history.csv").write_text("changed")
        assert check().returncode == 1


class TestHistory:
    def test_round_trip_is_exact(self, folder: Path, toy_run: MakeRun) -> None:
        values = [0.1 + 0.2, -1e-320, 1e308, math.pi, -0.0, math.inf, 1 / 3]
        rows = [{"samples": float(n), "level": value} for n, value in enumerate(values)]
        (folder / "history.csv").write_text(history_csv(rows))
        back = Finished(toy_run(), folder, {}, {}, {}).history()
        assert [list(map(repr, row.items())) for row in back] == [list(map(repr, row.items())) for row in rows]

    def test_nan_survives(self, folder: Path, toy_run: MakeRun) -> None:
        (folder / "history.csv").write_text(history_csv([{"level": math.nan}]))
        assert math.isnan(Finished(toy_run(), folder, {}, {}, {}).history()[0]["level"])

    def test_no_rows(self, folder: Path, toy_run: MakeRun) -> None:
        assert history_csv([]) == ""
        (folder / "history.csv").write_text("")
        assert Finished(toy_run(), folder, {}, {}, {}).history() == []

    def test_a_value_stands_under_its_name_whatever_the_order(self) -> None:
        """Rows that come back from a checkpoint and rows made since need not list their columns alike."""
        assert history_csv([{"a": 1, "b": 2}, {"b": 3, "a": 4}]) == "a,b\n1,2\n4,3\n"

    def test_the_text_is_plain(self) -> None:
        assert history_csv([{"samples": 100, "level": 0.1}]) == "samples,level\n100,0.1\n"
