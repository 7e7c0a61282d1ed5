"""Where a picture lets through what lies behind it: of PNG and GIF, the formats of seals and logos. Pure."""

from io import BytesIO
from typing import Final

from PIL import Image

SIDE: Final = 64
_MOST_PIXELS: Final = 50_000_000
_EIGHTH: Final = SIDE // 8


def transparency(picture: bytes) -> bytes | None:
    """Return how opaque a picture is (0 to 255), in 64 rows of 64 fields; none where all of it is, or may be."""
    try:
        with Image.open(BytesIO(picture), formats=("PNG", "GIF")) as image:
            if not image.has_transparency_data or image.width * image.height > _MOST_PIXELS:
                return None
            return image.convert("RGBA").getchannel("A").resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()
    except (OSError, ValueError, SyntaxError):  # as Pillow refuses what is damaged or of another format
        return None


def is_lace(fields: bytes | None) -> bool:
    """Tell whether no eighth by eighth of a picture covers what lies behind, as that of a seal or a sign does not."""
    if fields is None:
        return False
    eighths = range(0, SIDE, _EIGHTH)
    means = (
        sum(sum(fields[row * SIDE + left : row * SIDE + left + _EIGHTH]) for row in range(top, top + _EIGHTH))
        for top in eighths
        for left in eighths
    )
    return all(mean < 0.9 * 255 * _EIGHTH * _EIGHTH for mean in means)
