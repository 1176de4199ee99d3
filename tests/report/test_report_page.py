"""The page: right numbers, nothing from elsewhere, nothing unescaped, and no run too young for it."""

import json
import re
from html.parser import HTMLParser

import pytest

from limbeck.errors import Mistake
from limbeck.report import write_page
from limbeck.report.inline import inline
from limbeck.report.look import INK, MUTED
from limbeck.report.outcome import Outcome
from limbeck.report.plots import rates


class Reader(HTMLParser):
    """Collects what a browser would see, and checks that tags close."""

    void = frozenset({"meta", "link", "br", "hr", "img", "path", "use", "rect", "circle", "line"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.text, self.counts = [], set(), [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self.counts[tag] = self.counts.get(tag, 0) + 1
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def page(shelf, tmp_path_factory):
    return write_page(shelf, tmp_path_factory.mktemp("page") / "report.html").read_text()


def test_it_is_whole_and_closed(page):
    reader = Reader(page)
    assert page.startswith("<!DOCTYPE html>")
    assert [reader.counts[tag] for tag in ("html", "head", "body", "h1", "table")] == [1, 1, 1, 1, 1]


def test_it_needs_nothing_else(page):
    reader = Reader(page)
    assert not reader.tags & {"script", "link", "img", "iframe", "object"}
    places = [value for _, name, value in reader.attributes if name in ("src", "href", "xlink:href", "srcset")]
    assert all(place.startswith("#") for place in places)
    assert not re.search(r"url\((?!#)|@import|http", re.sub(r'xmlns(:xlink)?="[^"]*"', "", page))


def test_every_place_that_is_pointed_to_is_there_once(page):
    reader = Reader(page)
    own = [value for _, name, value in reader.attributes if name == "id"]
    assert len(own) == len(set(own))
    assert set(re.findall(r"url\(#([\w-]+)\)", page)) <= set(own)


def test_it_has_the_numbers(page):
    text = " ".join(Reader(page).text)
    for number in ("98.61", "94.50 ± 0.71", "96.75 ± 0.71", "93.50", "97.50", "95.25", "92.00", "5 of 12", "850 MiB"):
        assert number in text


def test_gains_are_over_the_student_alone(page):
    tiles = re.findall(r"<li[^>]*><b>(.*?)</b><span>(.*?)</span>", page)
    assert tiles == [("98.61", "resnet56, the teacher"), ("94.50", "resnet20 alone"),
                     ("+2.25", "kd"), ("−1.00", "reviewkd"), ("+3.00", "distpro")]
    assert "With fewer than three seeds a small difference can be chance." in page


def test_a_row_a_setting_and_a_fold_a_row(page):
    assert page.count("<tr>") == 1 + 7
    assert page.count("<details><summary><b>") == 7


def test_pictures_come_for_wide_and_narrow_screens(page):
    pictures = 1 + 1 + 1 + 2 * 7  # scores, curves, the one process, losses and rates of each row
    assert page.count("<figure>") == page.count('class="wide"><svg') == page.count('class="narrow"><svg') == pictures
    assert "27 searched terms" in page
    assert "Computed in a replay" in page


def test_how_to_repeat_a_run(page, shelf):
    text = " ".join(Reader(page).text)
    assert f"limbeck search --config {shelf[6]}/config.yaml --run {shelf[6]}-again" in text
    assert f"limbeck search --run {shelf[6]} --set method.temperature=4" in text
    assert "0123456789ab" in text
    assert "training epochs 12" in " ".join(text.split())
    assert "method name kd" in " ".join(text.split())
    assert "drops:" in text


def test_everything_is_escaped(make, tmp_path):
    evil = "<script>alert('&')</script>"
    folder = make("evil", student=evil, teacher=None, method={"name": "none", "note": evil}, data={"source": evil})
    other = make("other", student=evil, teacher=None, method={"name": "none", "note": "none"}, data={"source": evil})
    (folder / "about.json").write_text(json.dumps({"device": evil, "command": [evil, evil], "data": {"name": evil}}))
    text = write_page([folder, other], tmp_path / "page.html", title=evil).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "script" not in Reader(text).tags


def test_a_run_without_metrics_has_a_page(make, tmp_path):
    text = write_page([make("new", done=0)], tmp_path / "page.html").read_text()
    assert "No epoch is scored yet." in text
    assert "0 of 12 epochs" in text


def test_a_run_without_a_record_of_its_machine_has_a_page(make, tmp_path):
    folder = make("bare")
    (folder / "about.json").unlink()
    assert "Environment" not in write_page([folder], tmp_path / "page.html").read_text()


def test_a_folder_takes_the_page(make, tmp_path):
    assert write_page([make("run", epochs=2)], tmp_path) == tmp_path / "report.html"


def test_a_page_needs_runs(tmp_path):
    with pytest.raises(Mistake, match="needs at least one run"):
        write_page([], tmp_path / "page.html")


def test_colours_and_fonts_of_a_picture_are_the_page_s(make):
    text = inline(rates(Outcome.read(make("run", epochs=2))), label='a "label"')
    assert text.startswith("<svg")
    assert text.endswith("</svg>")
    assert "var(--muted)" in text
    assert not {INK, MUTED} & set(re.findall(r"#[0-9a-f]{6}", text))
    assert 'aria-label="a &quot;label&quot;"' in text
    assert re.search("<text[^>]*>Learning rate</text>", text)
