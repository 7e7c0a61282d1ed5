"""Compares the letters that a PDF page draws with those that its file says they are. Pure.

A file says by maps of its own which letters its glyphs are, and nothing holds it to the truth: what a person approves
on the page may be read as other words. So the picture of each letter is laid over that of the same letter in typefaces
of ours. It is drawn otherwise where it is like another letter, and much less like the one that it is read as.

Compared are digits, Latin letters, brackets and the Korean syllables of KS X 1001. A letter of an odd typeface is like
none, and proves nothing. Without the typefaces (Debian's `fonts-nanum`) no Korean letter is compared.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, product
from math import ceil
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONTS: Final = tuple(
    Path(f"/usr/share/fonts/truetype/nanum/Nanum{name}.ttf")
    for name in ("Gothic", "GothicBold", "Myeongjo", "MyeongjoBold", "BarunGothic")
)
# Measured on 159,000 letters of 63 honest files in about 100 typefaces (docs/formats.md): none is over these.
_LIKE: Final = 0.75  # cosine of two pictures around their means: a letter that is like another
_MUCH_LESS: Final = 0.4  # than that is a picture like the letter that it is read as
_LESS_STILL: Final = 0.5  # where one of them is no Korean syllable
_A_LITTLE_LESS: Final = 0.15  # of digits, which differ less from font to font, and of 있 and 없
_LIKE_NO_SIGN: Final = 0.8  # of what is read as a sign or as nothing
_SIDE: Final = 20  # dots of a picture
_POINTS: Final = 48
_INK: Final = 40  # of 255
_PART: Final = 0.25  # of the longest stretch of ink: shorter ones at an edge are a neighbour's
_DIGITS: Final = "0123456789"
_CLOSE: Final = (frozenset(_DIGITS), frozenset("있없"))
_LATIN: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SIGNS: Final = "()[]{}/"
_SLANT: Final = 0.22  # of italics
_NO_SIGNS: Final = frozenset("23456789")  # 0 and 1 are like a ring and a bar
_TALL: Final = 1.3  # widths: a bullet is no letter
_UPRIGHT: Final = frozenset(f"{_DIGITS}Il")
_NOTHING: Final = frozenset({"Cc", "Cf", "Zs"})
_AT_ONCE: Final = 512

_Floats = NDArray[np.float32]
Dots = NDArray[np.uint8]
_Area = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Shown:
    """A letter on a drawn page: what its file says it is, its box in dots, and its quarter turns against the clock."""

    said: str
    box: _Area
    turn: int = 0


@dataclass(frozen=True, slots=True)
class Shapes:
    """Pictures of known letters, as vectors of length one around their means: those of a letter follow each other."""

    letters: tuple[str, ...]
    starts: NDArray[np.intp]
    vectors: _Floats
    places: Mapping[str, int]

    def likeness(self, pictures: _Floats) -> _Floats:
        """Return how like each letter each picture is."""
        return np.maximum.reduceat(pictures @ self.vectors.T, self.starts[:-1], axis=1)

    def likeness_to(self, place: int, pictures: _Floats) -> _Floats:
        """Return how like one letter each picture is."""
        own = self.vectors[self.starts[place] : self.starts[place + 1]]
        return np.asarray((pictures @ own.T).max(axis=1), np.float32)


@cache
def known_shapes() -> Shapes:
    """Draw the letters of the typefaces that are here; takes about a second."""
    drawn: dict[str, list[Dots]] = defaultdict(list)
    # A letter by itself needs no shaping (raqm), which takes a third as long again.
    basic = ImageFont.Layout.BASIC
    fonts = [ImageFont.truetype(path, _POINTS, layout_engine=basic) for path in FONTS if path.exists()]
    for font in (*fonts, ImageFont.load_default(_POINTS)):
        for letter, slant in product((*_DIGITS, *_LATIN, *_SIGNS), (0.0, _SLANT)):
            drawn[letter].append(_glyph(font, letter, slant))
    syllables = [bytes((row, cell)).decode("euc-kr") for row in range(0xB0, 0xC9) for cell in range(0xA1, 0xFF)]
    for font, letter in product(fonts, syllables):
        drawn[letter].append(_glyph(font, letter))
    letters = tuple(drawn)
    starts = np.cumsum([0, *(len(drawn[letter]) for letter in letters)])
    pictures = np.array(list(chain.from_iterable(drawn.values())))
    return Shapes(letters, starts, _vectors(pictures), {letter: place for place, letter in enumerate(letters)})


def _glyph(font: ImageFont.FreeTypeFont | ImageFont.ImageFont, letter: str, slant: float = 0.0) -> Dots:
    left, top, right, bottom = (int(edge) for edge in font.getbbox(letter))
    width, height = right - left, bottom - top
    picture = Image.new("L", (width, height))
    ImageDraw.Draw(picture).text((-left, -top), letter, fill=255, font=font)
    if slant:
        wide = (ceil(width + slant * height), height)
        picture = picture.transform(wide, Image.Transform.AFFINE, (1, slant, -slant * height, 0, 1, 0))
    return np.asarray(picture.resize((_SIDE, _SIDE), Image.Resampling.BOX, box=picture.getbbox()))


def _vectors(pictures: Dots) -> _Floats:
    """Blur pictures a little, so that a stroke may lie a dot aside, and make vectors of length one of them."""
    soft = pictures.astype(np.float32)
    for axis in (1, 2):
        wide = np.pad(soft, [(1, 1) if axis == one else (0, 0) for one in range(3)])
        before, here, after = (np.take(wide, range(at, at + _SIDE), axis) for at in range(3))
        soft = np.asarray((before + 2 * here + after) / 4, np.float32)
    flat = soft.reshape(len(soft), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    return np.asarray(flat / (np.linalg.norm(flat, axis=1, keepdims=True) + 1e-6), np.float32)


def drawn_otherwise(ink: Dots, letters: Sequence[Shown]) -> Iterator[tuple[str, str]]:
    """Yield what letters are read as, with what they are drawn as; `ink`: how much a page's text changes each dot."""
    if not letters:
        return
    shapes, page = known_shapes(), Image.fromarray(ink)
    places = [shapes.places.get(_narrow(letter.said), -1) for letter in letters]
    pictures = _vectors(np.array([_cut(page, letter.box, letter.turn) for letter in letters]))
    doubtful = list(_doubtful(shapes, places, pictures))
    for start in range(0, len(doubtful), _AT_ONCE):
        part = doubtful[start : start + _AT_ONCE]
        for at, likeness in zip(part, shapes.likeness(pictures[part]), strict=True):
            letter = letters[at]
            drawn = _other(shapes, letter, places[at], likeness)
            if drawn is None:
                continue
            # A font may give its letters larger boxes than they fill, with something of their neighbours.
            tight = _vectors(np.array([_cut(page, box, letter.turn) for box in _tighter(ink, letter.box)]))
            if all(_other(shapes, letter, places[at], one) for one in shapes.likeness(tight)):
                yield letter.said, drawn


def _narrow(said: str) -> str:
    """Return a letter of full width as the usual one."""
    is_wide = len(said) == 1 and unicodedata.east_asian_width(said) == "F"
    return unicodedata.normalize("NFKC", said) if is_wide else said


def _doubtful(shapes: Shapes, places: Sequence[int], pictures: _Floats) -> Iterator[int]:
    """Yield which pictures may be like another letter: one that is like its own is not much less so."""
    alike: dict[int, list[int]] = defaultdict(list)
    for at, place in enumerate(places):
        alike[place].append(at)
    yield from alike.pop(-1, [])
    for place, found in alike.items():
        own = shapes.likeness_to(place, pictures[found])
        yield from (at for at, likeness in zip(found, own, strict=True) if likeness < 1 - _A_LITTLE_LESS)


def _other(shapes: Shapes, letter: Shown, place: int, likeness: _Floats) -> str | None:
    """Return the letter that a picture shows, where it is certainly another than it is read as."""
    best = int(likeness.argmax())
    drawn = shapes.letters[best]
    if place >= 0:
        said = shapes.letters[place]
        return drawn if likeness[best] >= _LIKE and likeness[best] - likeness[place] >= _less(said, drawn) else None
    return drawn if likeness[best] >= _LIKE_NO_SIGN and _is_no_sign(letter, drawn) else None


def _less(said: str, drawn: str) -> float:
    """Return how much less a picture must be like one letter than like the other."""
    if any({said, drawn} <= close for close in _CLOSE):
        return _A_LITTLE_LESS
    return _MUCH_LESS if min(said, drawn) >= "가" else _LESS_STILL


def _is_no_sign(letter: Shown, drawn: str) -> bool:
    """Tell whether a letter is drawn where the file says a sign, nothing, or several letters."""
    if len(letter.said) > 1:
        return not (letter.said.isascii() and letter.said.isalpha())  # as in fi
    says_nothing = unicodedata.category(letter.said) in _NOTHING
    sides = letter.box[2] - letter.box[0], letter.box[3] - letter.box[1]
    width, height = sides if letter.turn % 2 == 0 else sides[::-1]
    is_tall = height > _TALL * width
    return drawn in _NO_SIGNS or drawn >= "가" or (says_nothing and is_tall and drawn in _UPRIGHT)


def _cut(page: Image.Image, box: _Area, turn: int) -> Dots:
    how = Image.Resampling.BOX if min(box[2] - box[0], box[3] - box[1]) > _SIDE else Image.Resampling.BILINEAR
    return np.rot90(np.asarray(page.resize((_SIDE, _SIDE), how, box=box)), -turn)


def _tighter(ink: Dots, box: _Area) -> Iterator[_Area]:
    """Yield the box of all ink in a box, and that without what reaches into it from beside."""
    left, top = int(box[0]), int(box[1])
    part = np.asarray(ink[top : ceil(box[3]), left : ceil(box[2])] > _INK)
    for edges in (_ends, _longest):
        x0, x1 = edges(part.max(axis=0, initial=False))
        y0, y1 = edges(part[:, x0:x1].max(axis=1, initial=False))
        if x1 > x0 and y1 > y0:
            yield left + x0, top + y0, left + x1, top + y1


def _ends(inked: NDArray[np.bool_]) -> tuple[int, int]:
    places = np.flatnonzero(inked)
    return (int(places[0]), int(places[-1]) + 1) if len(places) else (0, 0)


def _longest(inked: NDArray[np.bool_]) -> tuple[int, int]:
    """Return where the stretches of ink begin and end, without short ones at an edge."""
    changes = np.flatnonzero(np.diff(np.concatenate([[0], inked, [0]]).astype(np.int8)))
    stretches = [(int(start), int(end)) for start, end in zip(changes[::2], changes[1::2], strict=True)]
    most = max((end - start for start, end in stretches), default=0)
    kept = [
        (start, end) for start, end in stretches if (start > 1 and end < len(inked) - 1) or end - start >= _PART * most
    ]
    return (kept[0][0], kept[-1][1]) if kept else (0, 0)
