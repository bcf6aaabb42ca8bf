"""One file as pixels: each mode becomes what a viewer shows, or is refused in one sentence that names the file."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision import transforms

from lib.datasets.pictures import pixels
from lib.errors import UserError

WIDTH, HEIGHT = 60, 44


def picture(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Waves, an edge and a corner, so that a flip, a turn, swapped channels and plain sampling all show: (H, W, 3)."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(19 * x + c) * np.cos((11 + 7 * c) * y) for c in range(3)], axis=-1)
    corner = 60.0 * ((x < 0.3) & (y < 0.2))[..., None]
    return (110 + 80 * waves + corner + 30 * (x > 0.6)[..., None]).clip(0, 255).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def plain(array: np.ndarray) -> np.ndarray:
    """The pixels as they are where nothing is resized: (H, W, 3) -> (3, H, W)."""
    return np.asarray(array).transpose(2, 0, 1)


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as told:
        pixels(path, 8)
    sentence = str(told.value)
    assert sentence.startswith(f"{path} ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize("size", [(60, 44), (44, 60), (16, 16), (7, 90), (32, 32)])
def test_resized_as_by_the_published_loader_and_by_torch(size: tuple[int, int], tmp_path: Path) -> None:
    image = Image.fromarray(picture(*size))
    ours = pixels(saved(tmp_path / "a.png", image), 32)
    assert (ours.shape, ours.dtype, ours.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    theirs = transforms.Resize([32, 32], transforms.InterpolationMode.BICUBIC)(image)
    assert np.array_equal(ours, plain(theirs))
    floats = torch.from_numpy(plain(picture(*size)).astype(np.float32))[None]
    witness = torch.nn.functional.interpolate(floats, (32, 32), mode="bicubic", antialias=True)[0].clamp(0, 255)
    assert np.abs(ours - witness.numpy()).max() < 2.0  # PIL rounds after each of its two passes


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = picture(32, 32)[..., 0]
    for name in ("a.png", "a.bmp", "a.tif"):
        ours = pixels(saved(tmp_path / name, Image.fromarray(grey)), 32)
        assert np.array_equal(ours, np.stack([grey] * 3))
    bits = pixels(saved(tmp_path / "b.png", Image.fromarray(grey > 120)), 32)
    assert np.array_equal(bits, np.stack([255 * (grey > 120)] * 3))


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    indices = (np.arange(32 * 32).reshape(32, 32) // 3 % 5).astype(np.uint8)
    colours = np.array([[9, 200, 30], [255, 0, 7], [0, 0, 0], [31, 61, 255], [255, 255, 255]], dtype=np.uint8)
    image = Image.fromarray(indices)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    for name in ("a.png", "a.bmp", "a.tif"):
        assert np.array_equal(pixels(saved(tmp_path / name, image), 32), plain(colours[indices]))


def test_cmyk_becomes_rgb_by_the_plain_formula(tmp_path: Path) -> None:
    inks = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    wanted = (255.0 - inks[..., :3]) * (255.0 - inks[..., 3:]) / 255.0
    ours = pixels(saved(tmp_path / "a.tif", Image.frombytes("CMYK", (32, 32), inks.tobytes())), 32)
    assert np.abs(ours - plain(wanted)).max() <= 1.0
    inks[:] = [40, 160, 90, 25]
    jpeg = pixels(saved(tmp_path / "a.jpg", Image.frombytes("CMYK", (32, 32), inks.tobytes()), quality=95), 32)
    assert np.abs(jpeg - plain((255.0 - inks[..., :3]) * (230 / 255))).max() <= 4.0, "a CMYK JPEG is kept inverted"


@pytest.mark.parametrize("kind", ["RGBA", "LA", "palette", "colour key"])
def test_opaque_alpha_is_dropped_and_real_transparency_refused(kind: str, tmp_path: Path) -> None:
    base = picture(32, 32)
    for least in (255, 254):
        alpha = np.full((32, 32), 255, dtype=np.uint8)
        alpha[3, 5] = least
        options: dict[str, object] = {}
        wanted = base
        if kind == "RGBA":
            image = Image.fromarray(np.dstack([base, alpha]))
        elif kind == "LA":
            image = Image.merge("LA", [Image.fromarray(base[..., 0]), Image.fromarray(alpha)])
            wanted = np.dstack([base[..., 0]] * 3)
        elif kind == "palette":
            image = Image.fromarray(base).quantize(16)
            wanted = np.asarray(image.convert("RGB"))
            options["transparency"] = bytes([255] * 15 + [least])
        else:
            image = Image.fromarray(base)
            options["transparency"] = tuple(map(int, base[3, 5])) if least < 255 else (1, 2, 3)
        path = saved(tmp_path / f"{least}.png", image, **options)
        if least == 255:
            assert np.array_equal(pixels(path, 32), plain(wanted))
        else:
            sentence = refusal(path)
            assert "is partly transparent, and the background it belongs on is not in the file" in sentence
            assert f"`magick {path.name} -background white -flatten {path.name}`" in sentence


def test_one_channel_of_more_than_8_bits_is_refused(tmp_path: Path) -> None:
    deep = picture(32, 32)[..., 0].astype(np.uint16) * 250
    for name, array in (("a.png", deep), ("a.tif", deep), ("b.tif", deep.astype(np.int32)), ("c.tif", deep / 7.0)):
        image = Image.fromarray(array.astype(np.float32) if array.dtype == np.float64 else array)
        assert "has one channel of more than 8 bits" in refusal(saved(tmp_path / name, image))


def test_rgb_of_16_bits_keeps_its_upper_8(tmp_path: Path) -> None:
    deep = picture(32, 32).astype(np.uint16) * 256 + 77
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    assert np.array_equal(pixels(path, 32), plain(picture(32, 32)))


@pytest.mark.parametrize(("orientation", "clockwise"), [(1, 0), (6, 1), (3, 2), (8, 3)])
def test_the_camera_s_orientation_is_applied(orientation: int, clockwise: int, tmp_path: Path) -> None:
    """clockwise: quarter turns that show the stored pixels upright, by the EXIF standard."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.jpg", Image.fromarray(picture(32, 32)), exif=exif, quality=95)
    stored = np.asarray(Image.open(path))
    assert np.array_equal(pixels(path, 32), plain(np.rot90(stored, -clockwise)))


def test_halves_of_a_pair(tmp_path: Path) -> None:
    array = picture(65, 32)  # an odd column goes to the right, as in the published loader
    path = saved(tmp_path / "a.png", Image.fromarray(array))
    assert np.array_equal(pixels(path, 32, "left"), plain(array[:, :32]))
    right = Image.fromarray(array[:, 32:]).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(pixels(path, 32, "right"), plain(right))


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    first, second = Image.fromarray(picture(32, 32)), Image.fromarray(255 - picture(32, 32))
    path = saved(tmp_path / "a.tif", first, save_all=True, append_images=[second])
    assert np.array_equal(pixels(path, 32), plain(picture(32, 32)))


def test_a_mode_that_is_not_read_is_told(tmp_path: Path) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(picture()), to_lab)
    assert lab is not None
    assert "has the colour mode LAB, which is not read: save it as RGB." in refusal(saved(tmp_path / "a.tif", lab))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp", "tif"])
def test_a_truncated_file_is_told(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(picture(200, 150)))
    whole = path.read_bytes()
    assert pixels(path, 8).shape == (3, 8, 8)
    for keep in (len(whole) * 3 // 4, 40):
        path.write_bytes(whole[:keep])
        assert "sound copy there, or delete it." in refusal(path)


def test_what_is_no_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    for content in (b"", b"<html>404</html>"):
        path.write_bytes(content)
        assert refusal(path) == f"{path} is no image that can be read: put a sound copy there, or delete it."
    path.unlink()
    assert "cannot be read as an image (No such file or directory)" in refusal(path)


def test_an_image_that_would_fill_the_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(picture()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "cannot be read as an image (Image size (2640 pixels) exceeds limit" in refusal(path)
