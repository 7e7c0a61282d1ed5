"""Where something lies in front of a Word file's text the approver is told; where nothing is hidden, nobody is."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import docx
import pytest
from docx.document import Document
from docx.enum.text import WD_BREAK
from docx.oxml import parse_xml
from docx.shared import Pt
from PIL import Image, ImageDraw

from ingest.parsing import read_document
from knowledge.passage import COVERED

SEEN = "금리는 연 3.1%입니다"
NAMES = " ".join(
    f'xmlns:{prefix}="{name}"'
    for prefix, name in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
        "r": "http://schemas.openxmlformats.org/officeDocument/2006/relationships",
        "pic": "http://schemas.openxmlformats.org/drawingml/2006/picture",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
        "wpg": "http://schemas.microsoft.com/office/word/2010/wordprocessingGroup",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "v": "urn:schemas-microsoft-com:vml",
        "w10": "urn:schemas-microsoft-com:office:word",
    }.items()
)
WHITE = '<a:solidFill><a:srgbClr val="FFFFFF"/></a:solidFill>'
NO_FILL = "<a:noFill/>"
NO_WRAP = "<wp:wrapNone/>"
ABOVE, BELOW = 251_659_264, 251_658_240


def shape(fill: str = WHITE, kind: str = "rect", style: str = "", text: str = "") -> str:
    box = f"<wps:txbx><w:txbxContent>{paragraph(text)}</w:txbxContent></wps:txbx>" if text else ""
    geometry = f'<a:prstGeom prst="{kind}"><a:avLst/></a:prstGeom>'
    return f"<wps:wsp><wps:cNvSpPr/><wps:spPr>{geometry}{fill}</wps:spPr>{style}{box}<wps:bodyPr/></wps:wsp>"


def paragraph(text: str) -> str:
    return f"<w:p><w:r><w:t>{text}</w:t></w:r></w:p>"


def anchor(
    graphic: str, wrap: str = NO_WRAP, height: int = ABOVE, more: str = "", size: tuple[int, int] = (999, 999)
) -> str:
    return (
        f'<w:drawing><wp:anchor relativeHeight="{height}" {more}><wp:extent cx="{size[0]}000" cy="{size[1]}000"/>{wrap}'
        f'<wp:docPr id="7" name="7"/><a:graphic><a:graphicData uri="">{graphic}</a:graphicData></a:graphic>'
        "</wp:anchor></w:drawing>"
    )


def put(document: Document, drawing: str) -> None:
    """Put a drawing into the last paragraph of a document."""
    document.paragraphs[-1]._p.append(parse_xml(f"<w:r {NAMES}>{drawing}</w:r>"))


def picture(document: Document, image: Image.Image | None = None) -> str:
    file = BytesIO()
    (image or Image.new("RGB", (64, 64))).save(file, "PNG")
    relation, _ = document.part.get_or_add_image(file)
    return f'<pic:pic><pic:blipFill><a:blip r:embed="{relation}"/></pic:blipFill><pic:spPr/></pic:pic>'


def vml(more: str = "", inside: str = "", style: str = "position:absolute;z-index:9;width:90pt;height:90pt") -> str:
    return f'<w:pict><v:rect style="{style}" {more}>{inside}</v:rect></w:pict>'


def a_picture(document: Document) -> None:
    put(document, anchor(picture(document)))


def a_picture_with_an_opaque_channel(document: Document) -> None:
    put(document, anchor(picture(document, Image.new("RGBA", (64, 64), "white"))))


def a_picture_that_is_half_open(document: Document) -> None:
    image = Image.new("RGBA", (64, 64), "white")
    ImageDraw.Draw(image).rectangle((0, 0, 64, 32), "#FFFFFF00")
    put(document, anchor(picture(document, image)))


def a_picture_without_a_wrap(document: Document) -> None:
    put(document, anchor(picture(document), wrap=""))


def a_picture_that_text_runs_through(document: Document) -> None:
    dot = "".join(f'<wp:{name} x="{x}" y="0"/>' for name, x in (("start", 0), ("lineTo", 9), ("lineTo", 0)))
    put(document, anchor(picture(document), f"<wp:wrapThrough><wp:wrapPolygon>{dot}</wp:wrapPolygon></wp:wrapThrough>"))


def a_filled_shape(document: Document) -> None:
    put(document, anchor(shape()))


def a_shape_that_its_style_fills(document: Document) -> None:
    style = '<wps:style><a:fillRef idx="1"><a:schemeClr val="accent1"/></a:fillRef></wps:style>'
    put(document, anchor(shape("", style=style)))


def a_shape_in_a_group(document: Document) -> None:
    put(document, anchor(f"<wpg:wgp><wpg:grpSpPr/>{shape(NO_FILL)}{shape()}</wpg:wgp>"))


def a_chart(document: Document) -> None:
    put(document, anchor('<c:chart r:id="rId99"/>'))


def an_older_shape(document: Document) -> None:
    put(document, vml())


def an_older_shape_for_programs_that_cannot_draw_nothing(document: Document) -> None:
    put(
        document,
        f'<mc:AlternateContent><mc:Choice Requires="zzz"/><mc:Fallback>{vml()}</mc:Fallback></mc:AlternateContent>',
    )


def an_older_picture(document: Document) -> None:
    relation = picture(document).partition('embed="')[2].partition('"')[0]
    put(document, vml('filled="f"', f'<v:imagedata r:id="{relation}"/>'))


def a_box_with_a_ground(document: Document) -> None:
    put(document, anchor(shape(text="상자 속의 글")))


def a_picture_over_a_box(document: Document) -> None:
    document.add_paragraph().paragraph_format.page_break_before = True
    put(document, anchor(shape(NO_FILL, text="덮인 상자"), height=BELOW))
    put(document, anchor(picture(document)))


def other_words_for_older_programs(document: Document) -> None:
    seen, unseen = (anchor(shape(NO_FILL, text=SEEN)), vml('filled="f"', paragraph("금리는 연 99%입니다")))
    put(
        document,
        f"<mc:AlternateContent><mc:Choice>{seen}</mc:Choice><mc:Fallback>{unseen}</mc:Fallback></mc:AlternateContent>",
    )


HIDING = [
    a_picture, a_picture_with_an_opaque_channel, a_picture_that_is_half_open, a_picture_without_a_wrap,
    a_picture_that_text_runs_through, a_filled_shape, a_shape_that_its_style_fills, a_shape_in_a_group, a_chart,
    an_older_shape, an_older_shape_for_programs_that_cannot_draw_nothing, an_older_picture, a_box_with_a_ground,
    a_picture_over_a_box, other_words_for_older_programs,
]  # fmt: skip


@pytest.mark.parametrize("draw", HIDING)
def test_what_may_cover_text_of_a_word_file_is_marked_where_it_stands(
    tmp_path: Path, draw: Callable[[Document], None]
) -> None:
    text = read_word(tmp_path, draw)
    assert SEEN in text
    assert text.count(COVERED) == 1


def read_word(folder: Path, draw: Callable[[Document], None]) -> str:
    document = docx.Document()
    document.add_paragraph(SEEN)
    document.add_paragraph("정기예금 안내")
    draw(document)
    document.save(str(folder / "deposit.docx"))
    return read_document(folder / "deposit.docx").pages[0].markdown


def a_picture_in_a_line(document: Document) -> None:
    document.add_picture(BytesIO(png(Image.new("RGB", (8, 8)))), width=Pt(90))


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def a_picture_that_text_flows_around(document: Document) -> None:
    for wrap in ("<wp:wrapSquare/>", "<wp:wrapTopAndBottom/>"):
        put(document, anchor(picture(document), wrap))
    corners = (("start", 0, 0), ("lineTo", 0, 21600), ("lineTo", 21600, 21600), ("lineTo", 21600, 0))
    outline = "".join(f'<wp:{name} x="{x}" y="{y}"/>' for name, x, y in corners)
    put(document, anchor(picture(document), f"<wp:wrapTight><wp:wrapPolygon>{outline}</wp:wrapPolygon></wp:wrapTight>"))


def a_picture_behind_the_text(document: Document) -> None:
    put(document, anchor(picture(document), more='behindDoc="1"'))
    put(document, vml(style="position:absolute;z-index:-9;width:90pt;height:90pt"))


def a_logo_in_a_header(document: Document) -> None:
    header = document.sections[0].header.paragraphs[0]
    header._p.append(parse_xml(f"<w:r {NAMES}>{anchor(shape())}</w:r>"))


def shapes_that_let_all_through(document: Document) -> None:
    put(document, anchor(shape(NO_FILL)))
    put(document, anchor(shape(kind="frame")))
    put(document, anchor(shape(kind="line")))
    put(
        document, anchor(shape('<a:solidFill><a:srgbClr val="FFFF00"><a:alpha val="40000"/></a:srgbClr></a:solidFill>'))
    )
    put(document, anchor(shape(), size=(999, 9)))
    put(document, vml('filled="f"'))
    put(document, vml("", '<v:fill opacity="32768f"/>'))
    put(document, vml("", '<v:textpath string="CONFIDENTIAL"/>'))
    put(document, vml("", '<w10:wrap type="square"/>'))
    put(document, vml(style="width:90pt;height:90pt"))


def a_seal(document: Document) -> None:
    image = Image.new("RGBA", (200, 200), "#FF000000")
    ImageDraw.Draw(image).ellipse((5, 5, 195, 195), outline="red", width=8)
    put(document, anchor(picture(document, image)))


def a_box_without_a_ground(document: Document) -> None:
    words = "상자 속의 글"
    ways = anchor(shape(NO_FILL, text=words)), vml('filled="f"', f"<v:textbox>{paragraph(words)}</v:textbox>")
    put(
        document,
        f"<mc:AlternateContent><mc:Choice>{ways[0]}</mc:Choice><mc:Fallback>{ways[1]}</mc:Fallback></mc:AlternateContent>",
    )


def a_hidden_shape(document: Document) -> None:
    put(document, anchor(shape()).replace('name="7"', 'name="7" hidden="1"'))


def a_cover_of_its_own_page(document: Document) -> None:
    document.add_paragraph().paragraph_format.page_break_before = True
    put(document, anchor(shape(), height=BELOW))
    put(document, anchor(shape(NO_FILL, text="표지의 제목")))
    document.paragraphs[-1].add_run().add_break(WD_BREAK.PAGE)
    document.add_paragraph("본문")


@pytest.mark.parametrize(
    "draw",
    [
        a_picture_in_a_line, a_picture_that_text_flows_around, a_picture_behind_the_text, a_logo_in_a_header,
        shapes_that_let_all_through, a_seal, a_box_without_a_ground, a_hidden_shape, a_cover_of_its_own_page,
    ],
)  # fmt: skip
def test_what_covers_no_text_of_a_word_file_is_not_marked(tmp_path: Path, draw: Callable[[Document], None]) -> None:
    text = read_word(tmp_path, draw)
    assert SEEN in text
    assert COVERED not in text
    if draw is a_box_without_a_ground:
        assert "상자 속의 글" in text
