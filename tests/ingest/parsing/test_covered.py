"""Text that a picture or a shape covers, or that has the colour of its ground, is left out, or the approver is told."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from lxml import etree
from PIL import Image
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.dml.color import RGBColor
from pptx.enum.chart import XL_CHART_TYPE
from pptx.enum.dml import MSO_THEME_COLOR
from pptx.enum.shapes import MSO_SHAPE
from pptx.oxml.ns import qn
from pptx.util import Inches, Pt

from ingest.parsing import read_document

Slide: TypeAlias = Any  # python-pptx gives types to too little of what is drawn here
Shape: TypeAlias = Any
CANARY = "금리는 연 99%입니다"
SEEN = "금리는 연 3.1%입니다"
WHITE, BLACK, NAVY, GREEN = map(RGBColor.from_string, ("FFFFFF", "000000", "003366", "008000"))
NEARLY_WHITE, NEARLY_NAVY = map(RGBColor.from_string, ("FDFDFD", "013467"))
PLACE = tuple(map(Inches, (1, 3, 5, 1)))  # of the text in question
AROUND = tuple(map(Inches, (0.9, 2.9, 5.2, 1.2)))  # what covers it


def picture(colour: str = "white", mode: str = "RGB") -> BytesIO:
    png = BytesIO()
    Image.new(mode, (64, 64), colour).save(png, "PNG")
    png.seek(0)
    return png


def words(slide: Slide, text: str = CANARY) -> Any:
    box = slide.shapes.add_textbox(*PLACE)
    box.text_frame.text = text
    return box.text_frame.paragraphs[0].runs[0]


def shape(slide: Slide, kind: MSO_SHAPE = MSO_SHAPE.RECTANGLE, at: tuple[int, ...] = AROUND) -> Shape:
    return slide.shapes.add_shape(kind, *at)


def filled(one: Shape, colour: RGBColor = WHITE) -> Shape:
    one.fill.solid()
    one.fill.fore_color.rgb = colour
    return one


def translucent(one: Shape, percent: int) -> None:
    colour = filled(one)._element.spPr.find(".//" + qn("a:srgbClr"))
    etree.SubElement(colour, qn("a:alpha")).set("val", str(percent * 1000))


def under_a_picture(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_picture(picture(), *AROUND)


def under_a_picture_with_an_opaque_channel(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_picture(picture(mode="RGBA"), *AROUND)


def under_a_filled_shape(slide: Slide) -> None:
    words(slide)
    filled(shape(slide))


def under_a_shape_that_its_style_fills(slide: Slide) -> None:
    words(slide)
    shape(slide)


def under_an_ellipse(slide: Slide) -> None:
    words(slide)
    filled(shape(slide, MSO_SHAPE.OVAL, tuple(map(Inches, (0, 2, 7, 3)))))


def under_a_freeform(slide: Slide) -> None:
    words(slide)
    left, top, width, height = AROUND
    outline = slide.shapes.build_freeform(left, top)
    outline.add_line_segments([(left + width, top), (left + width, top + height), (left, top + height)])
    filled(outline.convert_to_shape())


def under_two_halves(slide: Slide) -> None:
    words(slide)
    for left in (0.5, 2):
        filled(shape(slide, at=tuple(map(Inches, (left, 2.9, 1.5, 1.2)))))


def under_what_a_group_makes_large(slide: Slide) -> None:
    words(slide)
    group = slide.shapes.add_group_shape()
    filled(group.shapes.add_shape(MSO_SHAPE.RECTANGLE, 0, 0, Inches(1), Inches(1)))
    group.left, group.top, group.width, group.height = AROUND


def under_a_turned_shape(slide: Slide) -> None:
    words(slide)
    left, top, width, height = AROUND
    middle = left + width // 2, top + height // 2
    filled(shape(slide, at=(middle[0] - height // 2, middle[1] - width // 2, height, width))).rotation = 90


def under_a_picture_of_just_the_words(slide: Slide) -> None:
    box = slide.shapes.add_textbox(*map(Inches, (1, 2, 8, 5))).text_frame
    box.text = SEEN
    box.add_paragraph()
    box.add_paragraph().text = CANARY
    slide.shapes.add_picture(picture(), *map(Inches, (1, 2.6, 4, 0.4)))


def under_a_table(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_table(1, 1, *AROUND)


def under_the_colour_of_the_slide(slide: Slide) -> None:
    words(slide)
    shape(slide)._element.set("useBgFill", "1")


def in_a_place_of_the_layout(slide: Slide) -> None:
    slide.shapes.title.text = CANARY
    slide.shapes.add_picture(picture(), 0, 0, Inches(10), Inches(2))


def in_a_cell(slide: Slide) -> None:
    slide.shapes.add_table(1, 2, *PLACE).table.cell(0, 0).text = CANARY
    slide.shapes.add_picture(picture(), *AROUND)


def in_a_cell_of_its_colour(slide: Slide) -> None:
    cell = slide.shapes.add_table(1, 2, *PLACE).table.cell(0, 0)
    cell.text = CANARY
    cell.text_frame.paragraphs[0].runs[0].font.color.rgb = GREEN
    cell.fill.solid()
    cell.fill.fore_color.rgb = GREEN


def in_a_chart(slide: Slide) -> None:
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *PLACE, numbers(99))
    slide.shapes.add_picture(picture(), *AROUND)


def numbers(rate: int) -> CategoryChartData:
    data = CategoryChartData()  # type: ignore[no-untyped-call]  # publishes no types
    data.categories = ["1년"]
    data.add_series("금리", [rate])  # type: ignore[no-untyped-call]
    return data


def in_white(slide: Slide) -> None:
    words(slide).font.color.rgb = NEARLY_WHITE


def in_the_ground_of_the_theme(slide: Slide) -> None:
    words(slide).font.color.theme_color = MSO_THEME_COLOR.BACKGROUND_1


def in_the_own_colour_of_the_slide(slide: Slide) -> None:
    slide.background.fill.solid()
    slide.background.fill.fore_color.rgb = NAVY
    words(slide).font.color.rgb = NEARLY_NAVY


def in_the_colour_of_the_layout(slide: Slide) -> None:
    slide.slide_layout.background.fill.solid()
    slide.slide_layout.background.fill.fore_color.rgb = NAVY
    words(slide).font.color.rgb = NAVY


def in_a_darkened_white(slide: Slide) -> None:
    colour = words(slide).font.color
    colour.theme_color = MSO_THEME_COLOR.BACKGROUND_1
    colour.brightness = -0.05


def in_turned_names_of_colours(slide: Slide) -> None:
    change = slide._element.find(qn("p:clrMapOvr"))
    change.clear()
    names = etree.SubElement(change, qn("a:overrideClrMapping"))
    for name, value in dict(slide.slide_layout.slide_master._element.find(qn("p:clrMap")).attrib).items():
        names.set(name, value)
    names.set("bg1", "dk1")
    names.set("tx1", "lt1")
    words(slide).font.color.rgb = BLACK


def in_the_colour_of_its_shape(slide: Slide) -> None:
    box = filled(shape(slide), NAVY)
    box.text_frame.text = CANARY
    box.text_frame.paragraphs[0].runs[0].font.color.rgb = NAVY


def in_the_colour_of_a_shape_behind(slide: Slide) -> None:
    filled(shape(slide), BLACK)
    words(slide).font.color.rgb = BLACK


def in_the_colour_that_its_list_gives(slide: Slide) -> None:
    words(slide)
    style = slide.shapes[-1]._element.txBody.find(qn("a:lstStyle"))
    level = etree.SubElement(etree.SubElement(style, qn("a:lvl1pPr")), qn("a:defRPr"))
    etree.SubElement(etree.SubElement(level, qn("a:solidFill")), qn("a:schemeClr")).set("val", "bg1")


def in_the_colour_that_its_style_gives(slide: Slide) -> None:
    box = shape(slide)
    box.text_frame.text = CANARY
    box.fill.background()


def beside_words_that_are_seen(slide: Slide) -> None:
    words(slide, SEEN)
    more = slide.shapes[-1].text_frame.paragraphs[0].add_run()
    more.text = CANARY
    more.font.color.rgb = WHITE


def without_a_fill(slide: Slide) -> None:
    words(slide).font.fill.background()


def tiny_by_its_list(slide: Slide) -> None:
    words(slide)
    style = slide.shapes[-1]._element.txBody.find(qn("a:lstStyle"))
    etree.SubElement(etree.SubElement(style, qn("a:lvl1pPr")), qn("a:defRPr")).set("sz", "100")


def tiny_beside_words_that_are_seen(slide: Slide) -> None:
    words(slide, SEEN)
    more = slide.shapes[-1].text_frame.paragraphs[0].add_run()
    more.text, more.font.size = CANARY, Pt(1)


def in_a_group_beside_the_slide(slide: Slide) -> None:
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(0, 0, Inches(2), Inches(1)).text_frame.text = CANARY
    group.left = Inches(20)


HIDDEN = [
    under_a_picture, under_a_picture_with_an_opaque_channel, under_a_filled_shape, under_a_shape_that_its_style_fills,
    under_an_ellipse, under_a_freeform, under_two_halves, under_what_a_group_makes_large, under_a_turned_shape,
    under_a_picture_of_just_the_words, under_a_table, under_the_colour_of_the_slide, in_a_place_of_the_layout,
    in_a_cell, in_a_cell_of_its_colour, in_a_chart, in_white, in_the_ground_of_the_theme,
    in_the_own_colour_of_the_slide, in_the_colour_of_the_layout, in_a_darkened_white, in_turned_names_of_colours,
    in_the_colour_of_its_shape, in_the_colour_of_a_shape_behind, in_the_colour_that_its_list_gives,
    in_the_colour_that_its_style_gives, beside_words_that_are_seen, without_a_fill, tiny_by_its_list,
    tiny_beside_words_that_are_seen, in_a_group_beside_the_slide,
]  # fmt: skip


@pytest.mark.parametrize("hide", HIDDEN)
def test_what_nobody_sees_on_a_slide_is_left_out(tmp_path: Path, hide: Callable[[Slide], None]) -> None:
    text = read_slide(tmp_path, hide)
    assert SEEN in text
    assert "99" not in text


def read_slide(folder: Path, draw: Callable[[Slide], None]) -> str:
    deck = Presentation()
    slide = deck.slides.add_slide(deck.slide_layouts[5])
    draw(slide)
    last = slide.shapes.add_textbox(*map(Inches, (1, 6, 5, 1)))
    last.text_frame.text = SEEN
    deck.save(str(folder / "deposit.pptx"))
    return read_document(folder / "deposit.pptx").pages[0].markdown


def over_a_picture(slide: Slide) -> None:
    slide.shapes.add_picture(picture(), *AROUND)
    words(slide)


def in_white_over_a_picture(slide: Slide) -> None:
    slide.shapes.add_picture(picture("navy"), *AROUND)
    words(slide).font.color.rgb = WHITE


def in_a_shape_over_a_picture(slide: Slide) -> None:
    slide.shapes.add_picture(picture(), *AROUND)
    filled(shape(slide), NAVY).text_frame.text = CANARY  # in white by its style


def beside_a_logo(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_picture(picture(), *map(Inches, (1, 2.9, 1, 1)))


def under_a_shape_without_a_fill(slide: Slide) -> None:
    words(slide)
    shape(slide).fill.background()


def under_a_line(slide: Slide) -> None:
    words(slide)
    left, top, width, height = AROUND
    slide.shapes.add_connector(1, left, top, left + width, top + height)


def under_a_frame(slide: Slide) -> None:
    words(slide)
    filled(shape(slide, MSO_SHAPE.FRAME, tuple(map(Inches, (0.5, 2.5, 6, 2)))))


def under_a_freeform_with_a_hole(slide: Slide) -> None:
    words(slide)
    outline = slide.shapes.build_freeform(0, 0)
    outline.add_line_segments([Inches(c) for c in corner] for corner in ((9, 0), (9, 7), (0, 7)))
    outline.move_to(Inches(0.9), Inches(2.9))
    outline.add_line_segments([Inches(c) for c in corner] for corner in ((7, 2.9), (7, 5), (0.9, 5)))
    one = filled(outline.convert_to_shape())
    one._element.getparent().insert(3, one._element)  # above the words, below what stands after them


def under_a_light_through_shape(slide: Slide) -> None:
    words(slide)
    translucent(shape(slide), 40)


def under_a_seal(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_picture(picture("#FF000000", "RGBA"), *AROUND)


def under_a_hidden_shape(slide: Slide) -> None:
    words(slide)
    filled(shape(slide))._element.nvSpPr.cNvPr.set("hidden", "1")


def under_a_chart_without_a_ground(slide: Slide) -> None:
    words(slide)
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *AROUND, numbers(3))


def in_white_over_what_the_layout_draws(slide: Slide) -> None:
    banner = filled(shape(slide), NAVY)._element
    slide.slide_layout.shapes.element.append(banner)
    words(slide).font.color.rgb = WHITE


def in_white_over_many_colours(slide: Slide) -> None:
    ground = shape(slide)
    ground.fill.gradient()
    words(slide).font.color.rgb = WHITE


def in_white_over_a_bar_of_a_chart(slide: Slide) -> None:
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *AROUND, numbers(3))
    words(slide).font.color.rgb = WHITE


def in_white_over_a_picture_that_darkens(slide: Slide) -> None:
    slide.shapes.add_picture(picture("#00000099", "RGBA"), *AROUND)
    words(slide).font.color.rgb = WHITE


def in_white_that_a_link_does_not_have(slide: Slide) -> None:
    run = words(slide)
    run.font.color.rgb = WHITE
    run.hyperlink.address = "https://bank.example"


def in_white_in_a_head_of_a_table(slide: Slide) -> None:
    cell = slide.shapes.add_table(2, 1, *PLACE).table.cell(0, 0)
    cell.text = CANARY
    cell.text_frame.paragraphs[0].runs[0].font.color.rgb = WHITE


def in_white_with_a_dark_outline(slide: Slide) -> None:
    run = words(slide)
    run.font.color.rgb = WHITE
    letters = run._r.get_or_add_rPr()
    letters.insert(0, etree.fromstring(etree.tostring(letters).replace(b"a:rPr", b"a:ln")))
    letters[0].find(".//" + qn("a:srgbClr")).set("val", "000000")


def in_white_on_a_dark_slide(slide: Slide) -> None:
    slide.background.fill.solid()
    slide.background.fill.fore_color.rgb = NAVY
    words(slide).font.color.rgb = WHITE


def in_a_place_that_a_small_picture_touches(slide: Slide) -> None:
    slide.shapes.title.text = CANARY
    slide.shapes.add_picture(picture(), 0, 0, Inches(10), Inches(0.6))


@pytest.mark.parametrize(
    "show",
    [
        over_a_picture, in_white_over_a_picture, in_a_shape_over_a_picture, beside_a_logo, under_a_shape_without_a_fill,
        under_a_line, under_a_frame, under_a_freeform_with_a_hole, under_a_light_through_shape, under_a_seal,
        under_a_hidden_shape, under_a_chart_without_a_ground, in_white_over_what_the_layout_draws,
        in_white_over_many_colours, in_white_over_a_bar_of_a_chart, in_white_over_a_picture_that_darkens,
        in_white_that_a_link_does_not_have, in_white_in_a_head_of_a_table, in_white_with_a_dark_outline,
        in_white_on_a_dark_slide, in_a_place_that_a_small_picture_touches,
    ],
)  # fmt: skip
def test_what_is_seen_on_a_slide_is_read(tmp_path: Path, show: Callable[[Slide], None]) -> None:
    text = read_slide(tmp_path, show)
    assert SEEN in text
    assert CANARY in text
