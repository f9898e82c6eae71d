"""The page to look a dataset over."""

import re
from html.parser import HTMLParser

import numpy as np

from psanet_tf.data.catalog import DatasetInfo
from psanet_tf.data.checking import SplitReport
from psanet_tf.data.findings import Finding
from psanet_tf.visualization.contact_sheet import write_contact_sheet

INFO = DatasetInfo("mine", ("sea", "<land>", "sky"), np.array([[0, 0, 255], [0, 200, 0], [9, 9, 9]]))


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


def report(**changes):
    values = {
        "split": "train",
        "examples": [None] * 4,
        "findings": [],
        "pixels": np.array([6, 2, 0]),
        "images": np.array([2, 1, 0]),
        "ignored_pixels": 8,
        "sizes": [(4, 8), (8, 4), (4, 8)],
    }
    return SplitReport(**(values | changes))


def write(tmp_path, reports, samples, **keys):
    write_contact_sheet(tmp_path / "check.html", "Check of /data", reports, INFO, samples, **keys)
    return (tmp_path / "check.html").read_text()


def test_images_have_texts_and_nothing_is_fetched(tmp_path):
    image = np.full((1000, 2000, 3), 128, np.uint8)
    labels = np.repeat(np.array([[0, 1, 1, 255]], np.uint8), 500, axis=1).repeat(1000, axis=0)
    text = write(tmp_path, [report()], [[("p<1>", image, labels)]])
    elements = Elements(text).of("img")
    assert [element["alt"] for element in elements] == ["p<1>", "labels of p<1>: <land>, sea"]
    assert all(element["src"].startswith("data:image/jpeg;base64,") for element in elements)
    assert all((element["width"], element["height"]) == ("360", "180") for element in elements)
    assert "<land>" not in re.sub(r'alt="[^"]*"', "", text)
    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "<land> 67%" in text.replace("&lt;", "<").replace("&gt;", ">")
    assert len(text) < 60_000


def test_numbers_are_those_of_the_report(tmp_path):
    text = write(tmp_path, [report()], [[]])
    assert "37.500%" in text
    assert "12.500%" in text
    assert "50.000%" in text  # ignored
    assert re.search(r'absent"[^>]*>never<', text)
    assert "4 x 8" in text
    assert re.search(r"<b>2</b><span>landscape", text)
    assert re.search(r"<b>1</b><span>portrait", text)
    assert re.search(r"<b>8</b><span>median long side", text)


def test_findings_and_warnings_are_told(tmp_path):
    findings = [
        Finding("some note", is_problem=False),
        Finding("<b>wrong</b>", "do this", tuple(f"file{index}" for index in range(60))),
    ]
    text = write(tmp_path, [report(findings=findings)], [[]], warnings=["scales differ"])
    assert "1 problem found" in text
    assert "scales differ" in text
    assert "&lt;b&gt;wrong&lt;/b&gt;" in text
    assert text.index("wrong") < text.index("some note")
    assert "What to do: do this" in text
    assert "<li>file49</li>" in text
    assert "file50" not in text
    assert "and 10 more" in text
    assert "60 files" in text


def test_a_split_of_which_nothing_can_be_used(tmp_path):
    text = write(tmp_path, [report(pixels=np.zeros(3, int), images=np.zeros(3, int), ignored_pixels=0, sizes=[])], [[]])
    assert re.search(r"<b>0</b><span>with usable labels", text)
    assert "Nothing is wrong" in text
