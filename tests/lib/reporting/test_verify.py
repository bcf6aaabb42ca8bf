"""A file beside the published one: equal, another exhibit's, a former version, or different, and then in what."""

import hashlib
import io
import json
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from lib.errors import UserError
from lib.reporting.differences import difference
from lib.reporting.verify import verify

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="90pt" height="60pt" viewBox="0 0 90 60"><g id="axes" {group}>'
    '<path d="M 0 0 L 9 9" style="stroke: #000"/><path id="p1" d="M 1 1 L {x} 9"/></g><text x="3">{label}</text></svg>'
)
CSV = "model,nats,n\nNADE,88.3,3\nVAE,87.1,3\nGAN,91.5,3\n"


def svg(group: str = 'transform="scale(2)"', x: int = 9, label: str = "steps") -> bytes:
    return SVG.format(group=group, x=x, label=label).encode()


def png(size: tuple[int, int] = (8, 5), dots: int = 0, **options: object) -> bytes:
    picture, content = Image.new("RGB", size, "white"), io.BytesIO()
    for i in range(dots):
        picture.putpixel((i, 2), (0, 0, i))
    picture.save(content, "png", **options)
    return content.getvalue()


def table_json(**changes: object) -> bytes:
    rows = [{"model": "NADE", "nats": "88.3"}, {"model": "VAE", "nats": "87.1"}]
    document = {"identifier": "nade2011/table-1", "caption": "Likelihoods.", "rows": rows} | changes
    return json.dumps(document).encode()


def publish(root: Path, preset: str, files: dict[str, bytes]) -> None:
    """An exhibit for each identifier among `files`; what has an .svg is a figure."""
    folder, exhibits = root / preset / "figures", {}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        identifier = name.rpartition(".")[0]
        entry = exhibits.setdefault(identifier, {"identifier": identifier, "kind": "table", "files": {}})
        entry["kind"] = "figure" if name.endswith(".svg") else entry["kind"]
        entry["files"][name] = hashlib.sha256(content).hexdigest()
    (folder / "exhibits.json").write_text(json.dumps({"schema": 1, "exhibits": list(exhibits.values())}))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    figure = {"nade2011/figure-1.svg": svg(), "nade2011/figure-1.png": png()}
    publish(tmp_path / "published", "laptop", figure | {"nade2011/table-1.csv": CSV.encode()})
    publish(tmp_path / "published", "paper", {"nade2011/figure-1.svg": svg(x=7), "nade2011/figure-2.svg": svg(x=5)})
    return tmp_path / "published"


def given(root: Path, content: bytes, name: str = "mine.svg") -> Path:
    (root.parent / name).write_bytes(content)
    return root.parent / name


def test_equal_bytes_whatever_the_name(root):
    found = verify(given(root, svg(), "renamed.download"), "nade2011/figure-1", root)
    assert found.ok
    assert "laptop/figures/nade2011/figure-1.svg, byte for byte (sha256 " in found.sentence
    assert found.sentence.endswith(f"{hashlib.sha256(svg()).hexdigest()}), preset laptop.")


def test_equal_at_two_presets(root):
    publish(root, "paper", {"nade2011/figure-1.svg": svg()})
    assert verify(given(root, svg()), "nade2011/figure-1", root).sentence.endswith("presets laptop and paper.")


def test_another_exhibits_file_is_named(root):
    found = verify(given(root, svg(x=5)), "nade2011/figure-1", root)
    assert not found.ok
    assert "it is the published figure nade2011/figure-2 (" in found.sentence
    assert "preset paper" in found.sentence


def test_a_preset_that_is_asked_for_is_the_only_one(root):
    mine = given(root, svg(x=7))
    assert verify(mine, "nade2011/figure-1", root).ok
    found = verify(mine, "nade2011/figure-1", root, "laptop")
    assert not found.ok
    assert "not the published figure nade2011/figure-1 at the preset laptop: it is" in found.sentence
    assert "preset paper" in found.sentence


@pytest.mark.parametrize(
    ("name", "identifier", "preset", "sentence"),
    [
        ("absent.svg", "nade2011/figure-1", None, r"There is no file .*absent\.svg: give the path"),
        ("published", "nade2011/figure-1", None, r"published is no file"),
        ("mine.svg", "nade2011/figure-11", None, r"no figure or table .*did you mean 'nade2011/figure-1'\?"),
        ("mine.svg", "nade2011/figure-2", "laptop", r"not published at the preset 'laptop': give --preset paper"),
        ("mine.svg", "nade2011/figure-1", "smoke", r"No figures are in .*of the presets laptop, paper"),
        ("mine.svg", "nade2011/table-1", None, r"nade2011/table-1 is published as \.csv\. Give a file that ends so"),
        ("mine", "nade2011/figure-1", None, r"is published as \.png, \.svg"),
    ],
)
def test_what_cannot_be_verified_is_told_in_one_sentence(root, name, identifier, preset, sentence):
    for file in ("mine.svg", "mine"):
        given(root, b"of nobody", file)
    with pytest.raises(UserError, match=sentence):
        verify(root.parent / name, identifier, root, preset)


# --- git ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def committed(root):
    """Figure 1 as of two dates in history, and a third as it is now."""
    subprocess.run(["git", "init", "-q"], cwd=root.parent, check=True)

    def commit(content: bytes, day: str) -> str:
        publish(root, "laptop", {"nade2011/figure-1.svg": content})
        return keep(root, day)

    return root, commit(svg(label="first"), "2026-03-01"), commit(svg(label="second"), "2026-04-02"), commit


def keep(root: Path, day: str) -> str:
    who = {f"GIT_{w}_{f}": v for w in ("AUTHOR", "COMMITTER") for f, v in
           (("NAME", "t"), ("EMAIL", "t@example.org"), ("DATE", f"{day}T12:00:00+00:00"))}  # fmt: skip
    for command in (["add", "-A"], ["commit", "-q", "-m", "Published"], ["rev-parse", "HEAD"]):
        done = subprocess.run(["git", *command], cwd=root, env=os.environ | who, capture_output=True, check=True)
    return done.stdout.decode().strip()


def test_a_former_version_is_dated(committed):
    root, first, second, commit = committed
    third = commit(svg(), "2026-05-03")
    said = verify(given(root, svg(label="first")), "nade2011/figure-1", root).sentence
    assert "but a former version of it: " in said
    assert f"as published by commit {first[:12]} of 2026-03-01, until commit {second[:12]} of 2026-04-02" in said
    said = verify(given(root, svg(label="second")), "nade2011/figure-1", root).sentence
    assert f"commit {second[:12]} of 2026-04-02, until commit {third[:12]} of 2026-05-03 replaced it" in said


def test_a_removal_ends_a_version_and_an_uncommitted_change_does_not(committed):
    root, *_, commit = committed
    (root / "laptop/figures/nade2011/figure-1.svg").unlink()
    removal = keep(root, "2026-04-20")
    commit(svg(), "2026-05-03")
    mine = given(root, svg(label="second"))
    assert f"until commit {removal[:12]} of 2026-04-20 removed it" in verify(mine, "nade2011/figure-1", root).sentence
    publish(root, "laptop", {"nade2011/figure-1.svg": svg(label="not committed")})
    said = verify(given(root, svg()), "nade2011/figure-1", root).sentence
    assert said.endswith("of 2026-05-03; what replaces it is not committed yet.")


def test_a_published_file_that_was_changed_in_place(committed):
    """It is compared with what was published; without git there is nothing to compare with."""
    root, *_ = committed
    path = root / "laptop/figures/nade2011/figure-1.svg"
    path.write_bytes(svg(label="tampered"))
    found = verify(path, "nade2011/figure-1", root, "laptop")
    assert not found.ok
    assert "1 text element differs" in found.sentence
    bare = root.parent / "bare"
    publish(bare, "laptop", {"nade2011/figure-1.svg": svg()})
    (bare / "laptop/figures/nade2011/figure-1.svg").write_bytes(svg(label="tampered"))
    with pytest.raises(UserError, match="does not have the digest that exhibits"):
        verify(given(root, svg()), "nade2011/figure-1", bare)


# --- contents ----------------------------------------------------------------------------------------------------


def test_each_preset_is_compared_with(root):
    said = verify(given(root, svg(x=6)), "nade2011/figure-1", root).sentence
    assert said.count("1 path element differs (2, published 2)") == 2
    assert said.index("preset laptop: ") < said.index("preset paper: ")


@pytest.mark.parametrize(
    ("ending", "published", "yours", "said"),
    [
        (".csv", CSV, CSV.replace("87.1", "86.1"), "1 cell of 9 differs (row 2, nats: 87.1 → 86.1)"),
        (".csv", CSV, CSV.replace("3\n", "5\n").replace("88.3", "1"), "4 cells of 9 differ (row 1, nats: 88.3 → 1; "
         "row 1, n: 3 → 5; row 2, n: 3 → 5; …)"),
        (".csv", CSV, CSV.replace("VAE,87.1,3\n", ""), "it has 2 rows where the published has 3; 1 row missing ("),
        (".csv", CSV, CSV.replace("VAE", "PixelCNN,80,3\nVAE"), 
         "it has 4 rows where the published has 3; 1 row added ("),
        (".csv", CSV, "model,sd,n\nNADE,1,3\nVAE,1,3\nGAN,1,4\n",
         "columns missing: nats; columns added: sd; 1 cell of 6 differs (row 3, n: 3 → 4)"),
        (".csv", CSV, "\ufeff" + CSV.replace("\n", "\r\n"),
         "nothing that is shown differs, only how it is written down"),
        (".csv", CSV, CSV.replace("VAE", "\x1b[2J" + "V" * 99), f"model: VAE → \\x1b[2J{'V' * 53}…"),
        (".json", table_json(), table_json(caption="Other."), "'caption' differs ("),
        (".json", table_json(), table_json(rows=[{"model": "NADE", "nats": 88.3}]), "it has 1 row"),
        (".json", table_json(), table_json(rows=[{"model": "NADE", "nats": 3}, {"model": "VAE", "nats": "87.1"}]),
         "1 cell of 4 differs (row 1, nats: 88.3 → 3)"),
        (".tex", "a\nb\nc\nd\n", "a\nB\nc\nd\n", "1 line of 4 differs (line 2: b → B)"),
        (".tex", "a\nb\nc\nd\n", "a\nb\nd\n", "1 line of 4 differs (line 3: c → nothing)"),
        (".png", png(), png(dots=2), "2 pixels of 8 × 5 differ, 5 %"),
        (".png", png(), png((9, 5)), "it is 9 × 5 pixels large, the published 8 × 5"),
        (".png", png(), png(compress_level=0), "nothing that is shown differs"),
        (".svg", svg(), svg(x=8), "1 path element differs (2, published 2)"),
        (".svg", svg(), svg(group='transform="scale(3)"'), "2 path elements differ (2, published 2)"),
        (".svg", svg(), svg(label="epochs"), "1 text element differs (1, published 1)"),
        (".svg", svg(), svg().replace(b'"90pt"', b'"91pt"'),
         "its size is 91pt × 60pt (viewBox 0 0 90 60), the published"),
        (".svg", svg(), svg().replace(b"p1", b"p2"), "nothing that is shown differs"),
        (".svg", svg(), svg().replace(b'<text x="3">steps</text>', b""), "1 text element differs (0, published 1)"),
        (".pdf", "%PDF-1.4 a", "%PDF-1.4 abc", "its bytes differ, and PDF is compared by nothing else"),
        (".webp", "ab", "abc", "it has 3 bytes where the published has 2."),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) and value.isprintable() else "",
)  # fmt: skip
def test_what_differs(ending, published, yours, said):
    contents = [text if isinstance(text, bytes) else text.encode() for text in (yours, published)]
    told = difference(ending, "mine", *contents)
    assert said in told
    assert f"{len(contents[0]):,} bytes where the published has {len(contents[1]):,}" in told


def test_drawing_in_another_order_is_told():
    first, second = b'<rect width="1"/>', b'<rect width="2"/>'
    whole = b"<svg>%s%s</svg>"
    assert "in another order" in difference(".svg", "mine", whole % (second, first), whole % (first, second))


@pytest.mark.parametrize(
    ("ending", "content", "sentence"),
    [
        (".csv", b"a,b\n1\n", "row 2 has 1 cells, the first 2"),
        (".csv", b"", "it is empty"),
        (".csv", b"\x89PNG\r\n\x1a\n\xff", "it is no UTF-8 text"),
        (".csv", b"a\0b", "it is no text"),
        (".json", b"{", "it is no JSON"),
        (".json", b"[" * 200_000, "it is no JSON"),
        (".json", b'{"cells": []}', 'it is no table, which is an object with "rows"'),
        (".json", b'{"rows": [1]}', "it is no table"),
        (".tex", b"\xff", "it is no UTF-8 text"),
        (".png", svg(), "it is no whole picture"),
        (".png", png()[:50], "it is no whole picture"),
        (".svg", b"<svg>", "it is no XML"),
        (".svg", b"<html></html>", "its root is <html>"),
        (".pdf", b"PDF", "it does not begin with %PDF-"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_not_what_it_is_called(ending, content, sentence):
    published = {".csv": CSV.encode(), ".json": table_json(), ".png": png(), ".svg": svg()}.get(ending, b"%PDF-")
    with pytest.raises(UserError) as refused:
        difference(ending, "mine.file", content, published)
    assert str(refused.value).startswith(f"mine.file is no {ending[1:].upper()} file that can be read: {sentence}")


def test_an_svg_may_nest_deeply():
    deep = b"<svg>" + b"<g>" * 50_000 + b"</g>" * 50_000 + b"</svg>"
    assert "differs" in difference(".svg", "mine", deep, svg())
