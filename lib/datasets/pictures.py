"""One image file as pixels: upright, RGB, a square of the wanted side; or one sentence that says what is wrong."""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lib.errors import UserError

Part = Literal["whole", "left", "right"]  # of a file that shows a pair side by side, the left or right half

_PLAIN = ("RGB", "RGBX", "L", "1", "P", "CMYK", "YCbCr")


def pixels(path: Path, side: int, part: Part = "whole") -> NDArray[np.uint8]:
    """uint8 (3, side, side): made square whatever its proportions were, by PIL's bicubic, which is antialiased.

    That is `Resize([side, side], BICUBIC)` of the published PyTorch loaders. Of several frames the first is taken;
    colour profiles are ignored, as there. What becomes of a mode:

    - grey, black and white, palette: the same picture in RGB;
    - an EXIF orientation is applied, as every viewer does: the camera's word for which side is up;
    - RGB of 16 bits: its upper 8, which is all that a screen shows;
    - CMYK: (255 - C)(255 - K) / 255 and so on, PIL's formula without a profile: colours may be a little off;
    - alpha that is opaque everywhere is dropped. Real transparency is refused: on which background the picture would be
      seen is not in the file, and the colours under transparent pixels are often garbage;
    - one channel of 16 or 32 bits, or floats, is refused: such files mostly hold measurements, and where black and
      white lie is not in the file. (Plain PIL would cut everything above 255.)

    Raises UserError, which names the file: the above, or a file that is no image, is truncated or cannot be read.
    """
    try:
        with Image.open(path) as image:
            # Before anything else: `load` of a file that is truncated raises, and a mode can change with it.
            image.load()
            upright = ImageOps.exif_transpose(image)
            picture = _rgb(upright, path)
            if part != "whole":
                half = picture.width // 2
                picture = picture.crop((0, 0, half, picture.height) if part == "left" else (half, 0, *picture.size))
            square = picture.resize((side, side), Image.Resampling.BICUBIC)
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is no image that can be read: put a sound copy there, or delete it.") from None
    except Exception as error:  # a broken file can raise any exception at all
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(
            f"{path} cannot be read as an image ({reason}): put a sound copy there, or delete it."
        ) from error
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))  # (side, side, 3) -> (3, side, side)


def _rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        raise UserError(
            f"{path} has one channel of more than 8 bits (mode {image.mode}), and which values are black and white is"
            " not in the file: save it with 8 bits a channel."
        )
    if "transparency" in image.info or image.mode in ("LA", "La", "PA", "RGBA", "RGBa"):
        with_alpha = image.convert("RGBA")
        if np.asarray(with_alpha)[..., 3].min() < 255:
            raise UserError(
                f"{path} is partly transparent, and the background it belongs on is not in the file: flatten it, as in"
                f" `magick {path.name} -background white -flatten {path.name}`."
            )
        return with_alpha.convert("RGB")
    if image.mode not in _PLAIN:
        raise UserError(f"{path} has the colour mode {image.mode}, which is not read: save it as RGB.")
    return image.convert("RGB")
