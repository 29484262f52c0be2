"""Reports class by class, best beside last, and as one page that needs nothing else."""

import base64
import html.parser
import json

import numpy as np
import pytest
import test_report

from sat_tf import report
from sat_tf.report import html as page_of

FIGURES = True  # are drawn

content, history, make_panel = test_report.content, test_report.history, test_report.make_panel
LABELS = np.array([0, 0, 0, 1, 1, 2])
CLEAN = np.array([0, 0, 1, 1, 2, -1])


def by_class():
    right = {"clean": CLEAN == LABELS, "pgd-20": np.array([1, 0, 0, 1, 0, 0], bool)}
    return report.by_class.counted(LABELS, right, {"clean": CLEAN}, 3)


def test_classes_are_counted_by_hand():
    found = by_class()
    assert found["count"] == [3, 2, 1]
    assert found["correct"] == {"clean": [2, 1, 0], "pgd-20": [1, 1, 0]}
    (confusion,) = found["confusion"]
    assert confusion["matrix"] == [[2, 1, 0], [0, 1, 1], [0, 0, 0]]  # what is no class is nowhere
    assert confusion["pairs"] == [[0, 1, 1], [1, 2, 1]]


def test_many_classes_have_pairs_and_no_matrix():
    labels = np.arange(1000).repeat(2)
    said = np.where(np.arange(2000) % 2, labels, 7)
    (confusion,) = report.by_class.counted(labels, {"clean": said == labels}, {"clean": said}, 1000)["confusion"]
    assert confusion["matrix"] is None and len(confusion["pairs"]) == 20 and confusion["pairs"][0] == [0, 7, 1]


def test_parts_add_up_to_the_whole():
    right = {"clean": CLEAN == LABELS, "pgd-20": np.array([1, 0, 0, 1, 0, 0], bool)}
    parts = []
    for some in (slice(0, 6, 2), slice(1, 6, 2)):
        of_part = {name: which[some] for name, which in right.items()}
        part = report.by_class.counted(LABELS[some], of_part, {"clean": CLEAN[some]}, 3)
        parts.append(json.loads(json.dumps(part)))
    assert report.by_class.joined(parts) == by_class()
    assert report.by_class.joined([parts[0], None]) is None


@pytest.fixture
def full(content):
    content["dataset"]["classes"] = ["shirt", "coat|jacket", "bag"]
    content["by_class"] = by_class()
    content["training"] |= {
        "validation_attack": "pgd-5",
        "validation_images": 90,
        "validations": [
            {"checkpoint": "best", "step": 200, "clean_accuracy": 0.4, "robust_accuracy": 11 / 90},
            {"checkpoint": "last", "step": 300, "clean_accuracy": 0.5, "robust_accuracy": 0.05},
        ],
    }
    return content


def test_a_report_shows_classes_and_confusions(tmp_path, full, history):
    written = report.write(tmp_path, full, history, None)
    assert {"figures/accuracy_by_class.png", "figures/confusion_matrix.png"} <= set(written)
    text = (tmp_path / "report.md").read_text()
    assert "| shirt | 3 | 66.7 % | 33.3 % |" in text and "| coat\\|jacket | 2 | 50.0 % | 50.0 % |" in text
    assert "Clean, most often: shirt taken for coat|jacket (1), coat|jacket taken for bag (1)." in text
    assert json.loads((tmp_path / "report.json").read_text())["by_class"] == full["by_class"]


def test_what_is_withheld_is_withheld_class_by_class(tmp_path, full):
    check = {"name": "finite", "hard": True, "passed": False, "figure": "f", "numbers": {}}
    report.write(tmp_path, {**full, "checks": [check], "checked": True, "trusted": False}, [], None)
    section = (tmp_path / "report.md").read_text().partition("## Accuracy by class")[2].partition("\n## ")[0]
    assert "| class | images | clean |" in section and "PGD" not in section


def test_the_last_checkpoint_stands_beside_the_best(tmp_path, full, history):
    report.write(tmp_path, full, history, None)
    text = (tmp_path / "report.md").read_text()
    assert (
        "| best | 200 | 40.0 % | 12.2 % |\n| last | 300 | 50.0 % | 5.0 % |" in text and "On 90 training images" in text
    )
    assert "| validations |" not in text


class Page(html.parser.HTMLParser):
    """What a browser would fetch, where links lead, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.images, self.links, self.anchors, self.open, self.tags, self.text = [], [], set(), [], set(), ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.add(tag)
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)
        if tag == "img":
            self.images.append(attrs["src"])
        if "href" in attrs:
            self.links.append(attrs["href"])
        self.anchors.add(attrs.get("id"))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_the_page_needs_nothing_else(tmp_path, full, history):
    full["command"] = "python main.py --act='<b>' && echo \"x\""
    full["checks"] = [{"name": "finite", "hard": True, "passed": False, "figure": "a < b", "numbers": {}}]
    written = report.write(tmp_path, full, history, make_panel())
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open and "script" not in page.tags and "link" not in page.tags and "url(" not in text
    images = [name for name in written if name.endswith(".png")]
    assert len(page.images) == len(images) >= 4
    for source, name in zip(page.images, images, strict=True):
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64" and base64.b64decode(data) == (tmp_path / name).read_bytes()
    assert page.links == ["#checks"] and "checks" in page.anchors
    assert full["command"] in page.text and "coat|jacket" in page.text and "a < b" in page.text


def test_markdown_as_html():
    text = "# T\n\nOne **bold** `a|b*c*` <x>\nline\n\n* a\n  b\n  * inner\n* c\n\n"
    text += "| h | k |\n| --- | --- |\n| 1\\|2 | **3** |\n"
    body = page_of.page(text, {}).partition("<body>\n")[2].partition("\n</body>")[0]
    assert body == (
        '<h1 id="t">T</h1>\n<p>One <strong>bold</strong> <code>a|b*c*</code> &lt;x&gt; line</p>\n'
        "<ul>\n<li>a b<ul><li>inner</li></ul></li>\n<li>c</li>\n</ul>\n"
        '<div class="wide"><table>\n<thead><tr><th>h</th><th>k</th></tr></thead>\n<tbody>\n'
        "<tr><td>1|2</td><td><strong>3</strong></td></tr>\n</tbody>\n</table></div>"
    )
