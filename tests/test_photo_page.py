"""ranking.csv and report.html: which photo comes first, and a page that any browser opens."""

from __future__ import annotations

import base64
import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
import threading
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from etils import epath
from PIL import Image

from configs import base
from rc2l_jax.evaluation import photo_scores
from rc2l_jax.evaluation.pages import write_answer_page, write_run_page
from rc2l_jax.prediction import ranking
from rc2l_jax.prediction.files import Prediction, describe_segments
from rc2l_jax.reports import gallery
from rc2l_jax.reports.gallery import SIDE, Cards, describe_gallery, make_card
from rc2l_jax.reports.page import is_page, page_text, write_page
from rc2l_jax.reports.painting import WRONG, Painter
from rc2l_jax.reports.photo_ranking import ranking_text
from rc2l_jax.reports.run_page import describe_run_page
from rc2l_jax.reports.writer import Report
from rc2l_jax.structs import VOID, EvalBatch, EvalView

NAMES = ("background", "cat", "<b>dog</b>")
HOSTILE = "day 1/</script><img src=x onerror=document.title='run'>.jpg"
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def described(ids: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    return describe_segments(Prediction(ids.astype(np.uint8), confidence, None), NAMES)


def test_a_photo_is_ranked_by_its_mean_confidence_and_names_its_least_sure_class():
    ids, confidence = np.zeros((10, 10), int), np.full((10, 10), 0.8, np.float16)
    ids[:2], confidence[:2] = 1, 0.25
    row = ranking.confidence_row("a", described(ids, confidence))
    expected = ("a", pytest.approx(0.8 * 0.8 + 0.2 * 0.25, abs=1e-3), "cat", 0.25)
    assert tuple(row[x] for x in ranking.COLUMNS[:4]) == expected
    assert row["classes"] == ["background", "cat"]


def test_a_speck_is_no_region():
    ids, confidence = np.zeros((200, 200), int), np.full((200, 200), 0.5, np.float16)
    ids[0, :3], confidence[0, :3] = 2, 0.125  # 3 of 40,000 pixels: below a 10,000th
    ids[1, :4], confidence[1, :4] = 1, 0.25  # a 10,000th
    assert ranking.confidence_row("a", described(ids, confidence))["lowest_region"] == "cat"


def test_the_least_sure_photo_comes_first_and_one_that_is_not_finite_before_it():
    ids = np.zeros((4, 4), int)
    rows = [
        ranking.confidence_row(name, described(ids, np.full((4, 4), value, np.float16)))
        for name, value in (
            ("b", 0.5),
            ("sure", 1.0),
            ("a", 0.5),
            ("broken", np.nan),
            ("low", 0.25),
        )
    ]
    rows.sort(key=ranking.order)
    assert [row["photo"] for row in rows] == ["broken", "low", "a", "b", "sure"]
    table = list(csv.DictReader(io.StringIO(ranking_text(ranking.COLUMNS, rows))))
    assert [row["mean_confidence"] for row in table] == ["", "0.25", "0.5", "0.5", "1.0"]


def test_any_name_stands_in_the_table():
    row = dict.fromkeys(ranking.COLUMNS) | {"photo": 'a,"b"\n\udcff', "classes": ["x", "y"]}
    (read,) = csv.DictReader(io.StringIO(ranking_text(ranking.COLUMNS, [row])))
    assert read["photo"] == 'a,"b"\n\\udcff' and read["classes"] == "x; y"


def test_a_photo_with_truth_is_scored_as_a_person_would():
    label = np.array([[0, 0, 1, 1], [0, 0, VOID, VOID]], np.uint8)
    teacher = np.array([[0, 0, 1, 0], [0, 0, 2, 0]], np.uint8)
    student = np.array([[0, 0, 1, 0], [0, 0, 0, 0]], np.uint8)
    row = photo_scores.photo_row("a", label, {"student": student, "teacher": teacher}, NAMES)
    assert row == {
        "photo": "a",
        "miou": pytest.approx((4 / 5 + 1 / 2) / 2, abs=1e-4),  # class 2 is only where nobody knows
        "pixel_accuracy": pytest.approx(5 / 6, abs=1e-4),
        "disagreement": 1 / 8,
        "lowest_class": "cat",
        "lowest_class_iou": 0.5,
        "classes": list(NAMES),
    }
    alone = photo_scores.photo_row("a", np.full_like(label, VOID), {"teacher": teacher}, NAMES)
    unknown = [alone[x] for x in ("miou", "pixel_accuracy", "disagreement", "lowest_class")]
    assert unknown == [None] * 4
    assert sorted([alone, row], key=photo_scores.order) == [row, alone], "the unknown one is last"


def test_only_the_worst_cards_are_kept_in_whatever_order_they_come():
    rng = np.random.default_rng(0)
    rows = [{"photo": f"{i:03}", "mean_confidence": float(x)} for i, x in enumerate(rng.random(50))]
    cards = Cards(ranking.order, most=7)
    for row in rows:
        cards.add(row, None)
    assert [row for row, _ in cards.ranked()] == sorted(rows, key=ranking.order)[:7]
    assert cards.wants(rows[0] | {"mean_confidence": 0.0})
    assert not cards.wants(rows[0] | {"mean_confidence": 1.0})


def decoded(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_a_card_is_a_small_photo_with_transparent_masks_of_its_size():
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, 300:] = (200, 100, 50)
    ids = np.zeros((600, 1200), np.uint8)  # a mask may have another resolution
    ids[:, 600:], ids[:300, :600] = 2, 1
    wrong, painter = ids == 1, Painter(NAMES)
    card = make_card(image, {"prediction": ids}, painter, wrong)
    photo, mask = decoded(card.photo), decoded(card.layers["prediction"])
    assert photo.format == "JPEG" and mask.format == "PNG" and mask.mode == "P"
    assert photo.size == mask.size == (SIDE, SIDE // 2)
    assert np.abs(np.asarray(photo)[:, -20:].astype(int) - (200, 100, 50)).max() < 8
    painted = np.asarray(mask.convert("RGBA"))
    assert (painted[:, 128:] == (*painter.colors[2], 255)).all()
    assert (painted[:64, :128] == (*painter.colors[1], 255)).all()
    assert not painted[64:, :128, 3].any(), "background is not painted"
    errors = np.asarray(decoded(card.layers["errors"]).convert("RGBA"))
    assert (errors[:64, :128] == (*WRONG, 255)).all() and not errors[64:, :, 3].any()
    assert card.classes == [0, 1, 2]


def texts(name: str, value: float = 0.5) -> dict[str, Any]:
    return {"name": name, "bar": value, "scores": [["confidence", f"{value:.2f}"]]}


def a_page(cards: Sequence[tuple[str, Any]], **more: Any) -> str:
    shown = [(texts(name, i / len(cards)), card) for i, (name, card) in enumerate(cards)]
    photos = describe_gallery(shown, Painter(NAMES), more.pop("total", len(cards)), "lowest first")
    return page_text({"title": f"Photos of {HOSTILE}", "gallery": photos, **more})


def a_card(seed: int = 0, **more: Any) -> gallery.Card:
    """A photo with edges and noise, as a camera's, and a mask of some regions."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 11, 3), np.uint8)).resize((640, 480), 3)
    image = np.asarray(coarse, np.int16) + rng.normal(0, 6, (480, 640, 1)).astype(np.int16)
    ids = Image.fromarray(rng.integers(0, 3, (6, 8), np.uint8)).resize((640, 480), 0)
    layers = {x: np.asarray(ids) for x in more.pop("layers", ["prediction"])}
    return make_card(image.clip(0, 255).astype(np.uint8), layers, Painter(NAMES), **more)


class Parsed(html.parser.HTMLParser):
    """Collects a page's tags, its attributes' addresses, and the text of its scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.texts: dict[str, str] = {}
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for key, value in attributes if key in ("src", "href")]
        self._inside = dict(attributes).get("type") or tag

    def handle_data(self, data: str) -> None:
        self.texts[self._inside] = self.texts.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    @property
    def document(self) -> Mapping[str, Any]:
        return json.loads(self.texts["application/json"])


def test_a_page_is_one_file_and_names_in_it_are_only_text():
    parsed = Parsed(a_page([(HOSTILE, a_card())], lead="{{title}} <!-- <script>"))
    assert not parsed.addresses, "nothing is loaded"
    assert (
        parsed.tags.count("script") == 2 and "img" not in parsed.tags and "link" not in parsed.tags
    )
    assert parsed.texts["title"] == f"Photos of {HOSTILE}"
    (card,) = parsed.document["gallery"]["cards"]
    assert card["name"] == HOSTILE and parsed.document["lead"] == "{{title}} <!-- <script>"
    assert card["photo"] == a_card().photo and set(card["layers"]) == {"prediction"}
    assert [x["name"] for x in parsed.document["gallery"]["classes"]] == list(NAMES)
    assert not re.search(r"url\(|@import|https?://", a_page([(HOSTILE, a_card())]))
    assert "innerHTML" not in parsed.texts["script"]


def test_a_thousand_photos_stay_below_30_mb(tmp_path):
    layers = {"layers": ["teacher", "student", "truth"], "wrong": np.eye(480, 640, dtype=bool)}
    few = [a_card(i, **layers) for i in range(8)]
    text = a_page([(f"photo {i}", few[i % 8]) for i in range(1_000)], total=4_321)
    assert len(Parsed(text).document["gallery"]["cards"]) == 1_000
    assert 5e6 < len(text) < 30e6


def test_photos_that_do_not_fit_are_left_out_and_counted():
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    card = make_card(noise, {"prediction": noise[..., 0] % 3}, Painter(NAMES))
    text = a_page([(str(i), card) for i in range(1_000)])
    shown = Parsed(text).document["gallery"]
    assert len(text) + 2_000 * len(shown["cards"]) > 29e6 - 1e5 and len(text) < 30e6
    assert len(shown["cards"]) < shown["total"] == 1_000


def test_a_page_is_known_again(tmp_path):
    write_page(tmp_path / "report.html", {"title": "x" * 5_000})
    (tmp_path / "other.html").write_text("<!doctype html><title>mine</title>")
    assert is_page(tmp_path / "report.html") and not is_page(tmp_path / "other.html")


def a_batch() -> EvalBatch:
    """Two devices with two photos of 4 x 6, padded to 8 x 8; the last one only fills up."""
    label = np.full((2, 2, 8, 8), VOID, np.uint8)
    label[..., :4, :6] = 1
    size = np.broadcast_to(np.array((4, 6), np.int32), (2, 2, 2))
    image = np.zeros((2, 2, 8, 8, 3), np.uint8)
    return EvalBatch((EvalView(image, size),), label, size, np.array([[0, 1], [2, -1]], np.int32))


def test_an_evaluation_writes_its_worst_photos_first(tmp_path):
    scores = photo_scores.PhotoScores(NAMES, "photo {}".format)
    found = np.zeros((2, 2, 8, 8), np.uint8)
    for i, right in enumerate((3, 6, 1, 0)):  # class 1 in so many columns
        found[divmod(i, 2)][:, :right] = 1
    assert scores.observe(a_batch(), {"student": np.zeros_like(found), "teacher": found})
    results = {"dataset": "drawn", "split": "val", "step": 3, "teacher": {"miou": 0.5}}
    write_answer_page(Report(tmp_path, None), results, scores)
    rows = list(csv.DictReader((tmp_path / "ranking.csv").open()))
    assert [row["photo"] for row in rows] == ["photo 2", "photo 0", "photo 1"]
    assert [float(row["miou"]) for row in rows] == pytest.approx([1 / 12, 1 / 4, 1], abs=1e-4)
    assert [float(row["disagreement"]) for row in rows] == pytest.approx(
        [1 / 6, 1 / 2, 1], abs=1e-4
    )
    shown = Parsed((tmp_path / "report.html").read_text()).document["gallery"]
    assert shown["layers"] == ["teacher", "student", "truth", "errors"]
    assert [card["name"] for card in shown["cards"]] == [row["photo"] for row in rows]


def test_processes_bring_their_photos_together(tmp_path, monkeypatch):
    """Two processes that saw a photo each; process 0 writes the table of both."""
    mine, other = (photo_scores.PhotoScores(NAMES, f"{x} {{}}".format) for x in ("mine", "other"))
    for scores, right in ((mine, 6), (other, 2)):
        found = np.zeros((2, 2, 8, 8), np.uint8)
        found[..., :right] = 1
        scores.observe(a_batch(), {"teacher": found})

    def gathered(value: Any) -> list[Any]:
        theirs = other.rows if value is mine.rows else other.cards.ranked()
        return json.loads(json.dumps([value, theirs]))

    monkeypatch.setattr("rc2l_jax.evaluation.pages.gathered", gathered)
    results = {"dataset": "drawn", "split": "val", "step": 3, "teacher": {"miou": 0.5}}
    write_answer_page(Report(tmp_path, None), results, mine)
    rows = list(csv.DictReader((tmp_path / "ranking.csv").open()))
    assert [row["photo"] for row in rows] == [
        f"{x} {i}" for x in ("other", "mine") for i in range(3)
    ]
    assert len(Parsed((tmp_path / "report.html").read_text()).document["gallery"]["cards"]) == 6


@pytest.fixture
def run_document(tmp_path: Path) -> dict[str, Any]:
    entry = {"miou": 0.4, "iou": {"background": 0.9, "cat": None, "<b>dog</b>": 0.3}}
    results = {
        "step": 900, "dataset": "drawn", "split": "val", "student": entry, "teacher": entry,
        "best": {"step": 800, "student_miou": 0.41, "teacher_miou": None},
    }  # fmt: skip
    init = {
        "file": "resnet.npz",
        "family": "ResNet",
        "loaded": ["a", "b"],
        "reinitialized": {"c/d": ""},
    }
    (tmp_path / "init.json").write_text(json.dumps(init))
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (400, 200), "teal").save(tmp_path / "figures" / "curves.png")
    return describe_run_page(
        tmp_path, results, ["The teacher is still rising."], [["Data", "drawn"]]
    )


def test_a_runs_page_repeats_that_pseudo_labels_collapsed(tmp_path):
    entry = {"miou": 0.4, "iou": {"background": 0.5, "cat": 0.3}}
    both = {"student": entry, "teacher": entry}
    results = {"step": 9, "dataset": "drawn", "split": "val", **both, "best": None}
    (tmp_path / "results.json").write_text(json.dumps(results))
    metrics = {"unsup_weight": 1.0, "pseudo/segments": 0.0, "pseudo/classes": 0.0}
    lines = [
        {"step": step, "student_miou": 0.4, "teacher_miou": 0.4, "metrics": metrics}
        for step in (3, 9)
    ]
    (tmp_path / "evaluations.jsonl").write_text("".join(f"{json.dumps(x)}\n" for x in lines))
    config = base.get_config()
    config.data.num_classes = 2
    write_run_page(Report(epath.Path(tmp_path), None), config)
    notes = Parsed((tmp_path / "report.html").read_text()).document["notes"]
    assert notes[0].startswith("Pseudo labels had collapsed at 2 of 2 evaluations. At step 9: the")
    assert len(notes) == 3, "and how each network's curve ends"


def test_a_runs_page_says_scores_verdict_and_what_was_loaded(run_document, tmp_path):
    document = Parsed(page_text(run_document)).document
    assert document["lead"].startswith("teacher mIoU 0.400, student mIoU 0.400 on drawn val")
    assert document["notes"] == ["The teacher is still rising."]
    assert ["Best evaluation", "step 800: teacher unknown, student 0.410"] in document["facts"]
    loaded = "2 arrays of resnet.npz (ResNet); 1 began at random, in c"
    assert ["Loaded before training", loaded] in document["facts"]
    assert document["bars"]["rows"] == [
        ["background", 0.9, 0.9], ["<b>dog</b>", 0.3, 0.3], ["cat", None, None],
    ]  # fmt: skip
    ((_, address),) = document["pictures"]
    assert decoded(address.partition("base64,")[2]).size == (400, 200)


def skip_without_chromium() -> None:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")


def opened(path: Path, *arguments: str) -> types.SimpleNamespace:
    """Opens a page in Chromium without a window; returns what it printed."""
    skip_without_chromium()
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
               "--virtual-time-budget=4000", *arguments, path.as_uri()]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    errors = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return types.SimpleNamespace(dom=done.stdout, errors=errors)


@pytest.mark.slow
def test_a_browser_shows_the_first_cards_without_an_error(tmp_path):
    card = a_card(layers=["teacher", "truth"], wrong=np.ones((480, 640), bool))
    cards = [(HOSTILE, card), *((f"photo {i}", card) for i in range(300)), ("gone", None)]
    (tmp_path / "report.html").write_text(a_page(cards))
    page = opened(tmp_path / "report.html", "--window-size=1280,800", "--dump-dom")
    assert not page.errors
    parsed = Parsed(page.dom)
    assert 0 < parsed.tags.count("article") < 300, "cards are made as they are needed"
    assert parsed.texts["title"] == f"Photos of {HOSTILE}", "no name was run"
    assert page.dom.count('type="radio"') == 3 and "302 photos" in page.dom
    assert "&lt;b&gt;dog&lt;/b&gt;" in page.dom and "<b>dog" not in page.dom.partition("<script")[0]


SCROLLED = """
new Promise((done) => {
  const names = () => [...document.querySelectorAll(".name")].map((x) => x.textContent);
  const first = names().length;
  const timer = setInterval(() => {
    scrollTo(0, 1e7);
    if (names().length <= first + 40) return;
    clearInterval(timer);
    done(JSON.stringify([first, names()]));
  }, 50);
})
"""
USED = """
<script>
const change = (element, value, kind) => {
  element.value = value;
  element.dispatchEvent(new Event(kind));
};
const masks = () => [...document.querySelectorAll(".mask")].map((x) => x.hidden ? "" : x.src);
setTimeout(() => {
  const before = masks();
  document.querySelectorAll('#views input')[1].click();
  const truth = masks();
  change(document.getElementById("opacity"), 25, "input");
  change(document.getElementById("filter"), "2", "change");
  setTimeout(() => {
    const names = [...document.querySelectorAll(".name")].map((x) => x.textContent);
    const opacity = getComputedStyle(document.querySelector(".mask")).opacity;
    document.title = JSON.stringify({ before, truth, after: masks(), names, opacity });
  }, 1000);
}, 1000);
</script>
"""


def evaluated(path: Path, promise: str) -> str:
    """What a promise in a page comes to, in real time.

    `opened` skips the time between two events, and with it the frames in which a browser notices
    that something came into view. So this speaks Chrome's DevTools protocol over two pipes.
    """
    requests, asked = os.pipe()
    answered, answers = os.pipe()
    start = f'exec "$0" "$@" 3<&{requests} 4>&{answers}'  # Chromium reads from 3 and writes to 4
    command = ["bash", "-c", start, CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
               "--remote-debugging-pipe", path.as_uri()]  # fmt: skip
    with (
        subprocess.Popen(command, pass_fds=(requests, answers), stderr=subprocess.DEVNULL) as run,
        open(asked, "wb", buffering=0) as out,
        open(answered, "rb", buffering=0) as back,
    ):
        os.close(requests), os.close(answers)
        watchdog = threading.Timer(120, run.kill)  # then `back` ends
        watchdog.start()

        def ask(method: str, session: str = "", **params: Any) -> dict[str, Any]:
            request = {"id": 1, "method": method, "params": params}
            request |= {"sessionId": session} if session else {}
            out.write(json.dumps(request).encode() + b"\0")
            while True:
                message = json.loads(b"".join(iter(lambda: back.read(1), b"\0")))
                if "id" in message:
                    return message.get("result", {})  # none while a page is being replaced

        pages = ask("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in pages if target["type"] == "page")
        session = ask("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]

        def value(expression: str) -> Any:
            answer = ask("Runtime.evaluate", session, expression=expression, awaitPromise=True)
            return answer.get("result", {}).get("value")

        while value("document.readyState == 'complete' && document.URL") != path.as_uri():
            time.sleep(0.05)
        found = value(promise)
        watchdog.cancel()
        run.kill()
    return found


@pytest.mark.slow
def test_who_scrolls_gets_more_cards(tmp_path):
    skip_without_chromium()
    path, card = tmp_path / "report.html", a_card()
    path.write_text(a_page([(f"{i}", card) for i in range(300)]))
    first, names = json.loads(evaluated(path, SCROLLED))
    assert 0 < first < 300 and first + 40 < len(names) <= 300
    assert names == [str(i) for i in range(len(names))]


@pytest.mark.slow
def test_view_opacity_and_class_can_be_chosen(tmp_path):
    image, painter = np.full((20, 30, 3), 90, np.uint8), Painter(NAMES)

    def card(predicted: int, true: int) -> gallery.Card:
        layers = {"teacher": np.full((20, 30), predicted), "truth": np.full((20, 30), true)}
        return make_card(image, layers, painter)

    cards = {"both": card(1, 2), "cats": card(1, 1), "dogs": card(2, 2)}
    path = tmp_path / "report.html"
    path.write_text(a_page([*cards.items()]).replace("</body>", f"{USED}</body>"))
    page = opened(path, "--dump-dom")
    assert not page.errors
    found = json.loads(Parsed(page.dom).texts["title"])

    def addresses(layer: str, *names: str) -> list[str]:
        return [f"data:image/png;base64,{cards[name].layers[layer]}" for name in names]

    assert found["before"] == addresses("teacher", *cards)
    assert found["truth"] == addresses("truth", *cards)
    assert found["names"] == ["both", "dogs"], "those with a dog, in the mask or the truth"
    assert found["after"] == addresses("truth", "both", "dogs") and found["opacity"] == "0.25"


@pytest.mark.slow
def test_a_browser_shows_a_run(run_document, tmp_path):
    write_page(tmp_path / "report.html", run_document)
    page = opened(tmp_path / "report.html", "--dump-dom")
    assert not page.errors
    assert page.dom.count('class="class"') == 3 and "data:image/png;base64," in page.dom
