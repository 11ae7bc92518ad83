import io
import re
from html.parser import HTMLParser

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from cnn_jax.reports import html


class Reader(HTMLParser):
    """Checks that tags nest, and keeps the texts and what the page refers to."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts, self.references = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.references += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def picture(color=(255, 0, 0)):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), color).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_page_is_self_contained_and_its_tags_nest():
    page = html.page(
        "Title",
        "Introduction",
        html.section(
            "Results",
            "A paragraph.",
            html.metrics({"accuracy": "98.6 %"}),
            html.table(["a", "b"], [[1, "x"]], "A caption"),
            html.figures(html.figure(picture(), "left"), html.figure(picture(), "right")),
        ),
    )
    reader = Reader(page)
    assert len(reader.references) == 2
    assert all(value.startswith("data:image/png;base64,") for value in reader.references)
    for text in ("Title", "Introduction", "Results", "A paragraph.", "98.6 %", "A caption", "left"):
        assert text in reader.texts
    assert "@import" not in page
    assert "url(" not in page


def test_every_text_is_escaped():
    mark = "<b>&\"'"
    page = html.page(
        mark,
        mark,
        html.section(
            mark,
            mark,
            html.metrics({mark: mark}),
            html.table([mark], [[mark]], mark),
            html.figure(picture(), mark),
        ),
    )
    assert "<b>" not in page
    assert Reader(page).texts.count(mark) == 11


def test_a_page_is_ascii_whatever_its_text():
    page = html.page("1 – 2", "µ ± σ")
    assert page.isascii()
    assert "µ ± σ" in Reader(page).texts


def test_numbers_in_a_table_are_readable():
    table = html.table(
        ["model", "parameters", "error"],
        [["resnet18", 11_689_512, np.float32(0.0698765)], ["none", None, None]],
    )
    assert "<td>resnet18</td>" in table
    assert '<td class="number">11,689,512</td><td class="number">0.06988</td>' in table
    assert table.count('<td class="number">–</td>') == 2


def test_a_table_may_have_no_rows():
    assert "<tbody>\n</tbody>" in html.table(["a", "b"], [])


def test_a_figure_is_drawn_as_png_and_saved(tmp_path):
    fig = Figure(figsize=(3, 2))
    fig.subplots().plot([1, 2])
    png = html.figure_png(fig, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes() == png
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        expected = image.width / 2  # 192 dots an inch on a screen of 96
    shown = int(re.search(r'width="(\d+)"', html.figure(png, "curve"))[1])
    assert abs(shown - expected) <= 1


def test_a_picture_without_a_resolution_is_shown_dot_by_dot():
    assert 'width="40"' in html.figure(picture(), "red")
