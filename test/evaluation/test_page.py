"""Pages, tables and pictures: complete in one file, with numbers and pixels that say what they should."""

import base64
import io
import math
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from rich.console import Console

from s4net_core.errors import S4NetError, ShapeError
from s4net_core.evaluation.agreement import Agreement
from s4net_core.evaluation.evaluate import Evaluation, Measurement
from s4net_core.evaluation.metrics import SegmentationScores
from s4net_core.evaluation.page import HtmlPage, write_page
from s4net_core.evaluation.pictures import BROKEN, FIXED, OTHER, Curve, PictureRow, changes, panels, save_picture
from s4net_core.evaluation.summary import summary_numbers, summary_tables
from s4net_core.evaluation.tables import Table, to_csv, to_markdown, to_rich
from s4net_core.labels import SUNRGBD37

SHAPE = (30, 44)
ARROW_RIGHT, HOME = "\ue014", "\ue011"
"""Keys as WebDriver names them."""
PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()


def new_row(truth=True, before=True):
    rng = np.random.default_rng(0)
    color = rng.integers(0, 256, (*SHAPE, 3), dtype=np.uint8)
    labels = [rng.integers(0, 5, SHAPE, dtype=np.uint8) for _ in range(3)]
    return PictureRow("frame 3", color, labels[0], labels[1] if before else None, labels[2] if truth else None)


def scores(value):
    return SegmentationScores(value, value + 0.01, value + 0.02, value + 0.03)


@pytest.fixture
def measured():
    """Two networks on twelve labelled frames without depth."""
    evaluations = {
        "base": Evaluation(scores(0.5), scores(0.4), {1: 0.6, 5: 0.3}, 12),
        "adapted": Evaluation(scores(0.7), scores(0.6), {1: 0.65, 22: 0.1}, 12),
    }
    return Measurement("Scan 2", evaluations, dict.fromkeys(evaluations, Agreement(math.nan, 0, 0)), 0, [])


class _Page(HTMLParser):
    """Tags that are open and never closed, images, and text."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self):
        super().__init__()
        self.open, self.images, self.links, self.sliders, self.text = [], [], [], 0, ""

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        if tag == "img":
            self.images.append(attributes)
        self.sliders += tag == "input" and attributes["type"] == "range"
        self.links += [attributes[key] for key in ("href", "src") if key in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def read_page(path):
    page = _Page()
    page.feed(path.read_text())
    assert page.open == []
    return page


def decoded(attributes):
    data = base64.b64decode(attributes["src"].partition(",")[2])
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


class TestPage:
    def test_page_holds_everything_and_needs_nothing_beside_it(self, tmp_path, measured):
        page = HtmlPage(
            "Before & after",
            summary_tables(measured),
            [Curve("Loss", {"L_S": ([1, 2, 3], [3.0, math.nan, 1.0]), "L_G": ([1, 2], [2.0, 1.0])}, smooth=2)],
            [new_row()],
            ["Adapted to <T1>."],
            {"learner.learning_rate": 1e-4},
        )
        write_page(tmp_path / "out" / "report.html", page)
        page = read_page(tmp_path / "out" / "report.html")
        assert all(link.startswith("data:image/") for link in page.links)
        for text in (
            "Before & after",
            "Adapted to <T1>.",
            "Scan 2",
            "mIoU",
            "0.720",
            "learner.learning_rate",
            "0.0001",
        ):
            assert text in page.text
        assert [image["alt"] for image in page.images] == [
            "Loss", "before", "after", "colour", "ground truth", "changes",
        ]  # fmt: skip
        for name in ("wall", "floor", "cabinet", "bed", "unlabelled"):
            assert name in page.text
        assert "sofa" not in page.text

    def test_label_pictures_are_exact(self, tmp_path):
        row = new_row()
        write_page(tmp_path / "report.html", HtmlPage("Labels", pictures=[row]))
        by_name = {image["alt"]: decoded(image) for image in read_page(tmp_path / "report.html").images}
        np.testing.assert_array_equal(by_name["after"], SUNRGBD37.colorize(row.after))
        np.testing.assert_array_equal(by_name["ground truth"], SUNRGBD37.colorize(row.truth))
        assert by_name["colour"].shape == (*SHAPE, 3)

    def test_each_frame_has_a_slider_over_both_pictures(self, tmp_path):
        write_page(tmp_path / "report.html", HtmlPage("Two", pictures=[new_row(), new_row(truth=False)]))
        assert read_page(tmp_path / "report.html").sliders == 2
        sliders = (tmp_path / "report.html").read_text().split('<div class="slider">')[1:]
        assert [re.findall(r'alt="(\w+)"', slider.partition("</div>")[0]) for slider in sliders] == [
            ["before", "after"], ["before", "after"],
        ]  # fmt: skip

    def test_keys_move_the_border_of_a_slider(self, tmp_path, chromium):
        """Pixels as a browser draws them: one colour before, another one after."""
        before, after = (np.full(SHAPE, id, np.uint8) for id in (1, 2))
        row = PictureRow("frame", np.zeros((*SHAPE, 3), np.uint8), after, before)
        write_page(tmp_path / "report.html", HtmlPage("Slider", pictures=[row, row]))
        chromium.get((tmp_path / "report.html").as_uri())
        first, second = chromium.find_elements("class name", "slider")

        def shown(slider):
            """Share of the picture's middle line that has the colour of before, and of after."""
            image = cv2.imdecode(np.frombuffer(slider.screenshot_as_png, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            middle = image[len(image) // 2]
            return [(middle == np.array(SUNRGBD37.colors[id])).all(1).mean() for id in (0, 1)]

        np.testing.assert_allclose(shown(first), [0.5, 0.5], atol=0.05)
        for _ in range(25):
            first.find_element("tag name", "input").send_keys(ARROW_RIGHT)
        np.testing.assert_allclose(shown(first), [0.75, 0.25], atol=0.05)
        first.find_element("tag name", "input").send_keys(HOME)
        np.testing.assert_allclose(shown(first), [0, 1], atol=0.05)
        np.testing.assert_allclose(shown(second), [0.5, 0.5], atol=0.05)

    def test_one_network_is_shown_without_before_and_changes(self, tmp_path):
        write_page(tmp_path / "report.html", HtmlPage("One", pictures=[new_row(truth=False, before=False)]))
        page = read_page(tmp_path / "report.html")
        assert [image["alt"] for image in page.images] == ["colour", "labels"]
        assert page.sliders == 0
        assert "Changes" not in page.text

    def test_file_that_cannot_be_written_is_an_error_with_a_remedy(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(S4NetError, match="cannot be written"):
            write_page(tmp_path / "file" / "report.html", HtmlPage("No folder"))


class TestTables:
    def test_scores_are_listed_by_convention_and_network(self, measured):
        (table,) = summary_tables(measured, classes=False)
        assert [row[:2] for row in table.rows] == [
            ["base", "pooled"], ["adapted", "pooled"], ["base", "per image"], ["adapted", "per image"],
        ]  # fmt: skip
        assert table.rows[1][2:] == pytest.approx([0.7, 0.71, 0.72, 0.73, 12])
        assert table.rows[2][4] == pytest.approx(0.42)

    def test_classes_are_named_with_their_difference(self, measured):
        markdown = to_markdown(summary_tables(measured)[-1])
        assert "| wall | 0.600 | 0.650 | +0.050 |" in markdown
        assert "| chair | 0.300 | – | – |" in markdown

    def test_what_was_not_measured_is_left_out_and_what_was_is_told_in_numbers_too(self, measured):
        measured.agreements["base"] = Agreement(0.75, 40, 3)
        scores, agreement, classes = summary_tables(measured)
        assert scores.title == "Scores on Scan 2"
        assert classes.columns == ("class", "base", "adapted", "difference")
        assert agreement.rows[0] == ["base", 0.75, 40, 3]
        numbers = summary_numbers(measured)
        assert numbers["base"]["agreement"] == 0.75
        assert numbers["adapted"]["agreement"] is None
        assert numbers["adapted"]["class_iou"] == {"wall": 0.65, "ceiling": 0.1}
        assert "depth" not in numbers["base"]

    def test_an_empty_cell_makes_no_column_of_numbers(self):
        assert to_markdown(Table("T", ("a", "b"), [("x", ""), ("y", "z")])).splitlines()[1:3] == [
            "|---|---|",
            "| x | |",
        ]

    def test_markdown_is_a_table_with_numbers_to_the_right(self):
        markdown = to_markdown(Table("T", ("name", "value"), [("a|b", 0.12345), ("c", 7)]))
        assert markdown.splitlines() == ["| name | value |", "|---|---:|", "| a\\|b | 0.123 |", "| c | 7 |"]

    def test_groups_of_columns_stand_above_them_or_before_their_names(self, tmp_path):
        table = Table("T", ("scene", "mIoU", "mIoU"), [("A", 0.1, math.nan)], [("", 1), ("Scan 1", 1), ("Scan 2", 1)])
        assert to_markdown(table).startswith("| scene | Scan 1 mIoU | Scan 2 mIoU |")
        assert [column.header for column in to_rich(table).columns] == ["scene", "Scan 1 mIoU", "Scan 2 mIoU"]
        write_page(tmp_path / "report.html", HtmlPage("R", [table], figures=[("Figure", PIXEL)]))
        assert "<th colspan=1 class=group>Scan 2</th>" in (tmp_path / "report.html").read_text()
        page = read_page(tmp_path / "report.html")
        assert [image["alt"] for image in page.images] == ["Figure"]

    def test_csv_has_all_digits_and_comments_that_say_where_they_come_from(self):
        table = Table("T", ("name", "value"), [("a, b", 0.123456789), ("c", math.nan)])
        assert to_csv(table, ["two\nlines"]) == '# two\n# lines\nname,value\n"a, b",0.123456789\nc,\n'

    def test_terminal_table_has_the_same_cells(self, measured):
        (table,) = summary_tables(measured, classes=False)
        shown = to_rich(table)
        assert shown.row_count == 4
        assert list(shown.columns[4].cells) == ["0.520", "0.720", "0.420", "0.620"]

    def test_a_narrow_terminal_cuts_off_no_number(self):
        columns = ("training method", "network", *("pixel accuracy", "mIoU", "frequency weighted IoU") * 3)
        table = Table("T", columns, [("S4-Net, no source set", "DeepLabV3+", *(0.1234 + n / 100 for n in range(9)))])
        console = Console(width=80, file=io.StringIO())
        console.print(to_rich(table))
        (row,) = (line for line in console.file.getvalue().splitlines() if "0.123" in line)
        assert [cell.strip() for cell in row.split("│")[3:-1]] == [f"{0.1234 + n / 100:.3f}" for n in range(9)]


class TestPictures:
    def test_changes_are_coloured_by_what_became_of_them(self):
        """Pixels: the same, fixed, broken, from wrong to wrong, without truth."""
        truth, before, after = (np.array([v], np.uint8) for v in ([1, 1, 1, 1, 0], [1, 2, 1, 2, 2], [1, 1, 2, 3, 3]))
        shown = changes(np.full((1, 5, 3), 100, np.uint8), before, after, truth, SUNRGBD37)[0].astype(int)
        grey = 55
        for pixel, color in ((1, FIXED), (2, BROKEN), (3, OTHER)):
            np.testing.assert_allclose(shown[pixel], 0.8 * np.array(color) + 0.2 * grey, atol=1)
        assert (np.abs(shown[[0, 4]] - grey) <= 1).all()

    def test_changes_without_truth_have_the_colour_of_the_new_class(self):
        before, after = np.array([[1, 2]], np.uint8), np.array([[1, 5]], np.uint8)
        shown = changes(np.zeros((1, 2, 3), np.uint8), before, after, None, SUNRGBD37)[0]
        assert (shown[0] == 0).all()
        np.testing.assert_allclose(shown[1], 0.8 * np.array(SUNRGBD37.colors[4]), atol=1)

    def test_published_and_own_unlabelled_are_the_same(self):
        before, after = np.array([[0]], np.uint8), np.array([[255]], np.uint8)
        assert (changes(np.zeros((1, 1, 3), np.uint8), before, after, None, SUNRGBD37) == 0).all()

    def test_picture_file_is_a_strip_of_panels_with_a_legend(self, tmp_path):
        rows = [new_row(), new_row()]
        save_picture(tmp_path / "picture.png", rows)
        image = cv2.imread(str(tmp_path / "picture.png"))
        assert image.shape[1] > 2 * image.shape[0]  # five panels of 44 x 30 beside, two below each other
        assert (image[-1] == 255).all()
        colors = {tuple(c[::-1]) for c in np.unique(image.reshape(-1, 3), axis=0).tolist()}
        assert all(SUNRGBD37.colors[id - 1] in colors for id in rows[0].class_ids())

    def test_panels_of_a_capture_without_labels(self):
        assert [name for name, _, _ in panels(new_row(truth=False), SUNRGBD37)] == [
            "colour", "before", "after", "changes",
        ]  # fmt: skip

    def test_labels_of_another_size_are_refused(self):
        with pytest.raises(ShapeError, match=re.escape("picture x: labels are (44, 30) but colour is (30, 44)")):
            PictureRow("x", np.zeros((*SHAPE, 3), np.uint8), np.zeros(SHAPE[::-1], np.uint8))

    def test_no_picture_is_refused(self, tmp_path):
        with pytest.raises(S4NetError, match="no image"):
            save_picture(tmp_path / "picture.png", [])
