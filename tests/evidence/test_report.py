"""The report says what was measured, no more, and nothing in the texts can change the page."""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilrank.evidence.evaluate import Evaluation, System, evaluate
from distilrank.evidence.plots import changes, moving_average, ticks
from distilrank.evidence.report import headline, write_report
from distilrank.evidence.table import change_table, p_value
from distilrank.records import Group, Passage

QUERIES, PASSAGES = 40, 8
NASTY = "<script>alert('x')</script> & \"quotes\" </div> 你好 🙂 \x00 \ud800\n    for i in range(3):\n        print(i)"
TRAINING = {
    "settings": {"mode": "groups", "learning_rate": 2e-5, "dropout": None},
    "result": {"agreement_before": 0.81, "agreement_after": 0.93, "steps": 200, "seconds": 75.25, "scale": 1.5},
    "loss": [{"step": step, "loss": 4 / step**0.5 + 0.3 * (step % 3)} for step in range(2, 201, 2)],
    "agreement": [{"step": step, "agreement": 0.93 - 6 / (step + 50)} for step in (50, 100, 150, 200)],
    "versions": {"distilrank": "0.1.0", "torch": "2.11.0"},
}
SETTINGS = {
    "title": "Demo <b>title</b>",
    "recipe": "name: demo\nmine: {strategy: all_pairs}\n",
    "training": TRAINING,
    "notes": ["The labels were made by <i>rule</i>, not by people."],
    "stages": [{"stage": "train", "seconds": 75.25, "peak_mb": 812.0}, {"stage": "mine", "seconds": 0.5}],
    "device": "cpu",
}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def groups(texts: str = "passage") -> list[Group]:
    """One or two positives among eight passages; the last two queries have none, or nothing else."""
    labels = [[int(place == 0 or (place == 3 and query % 4 == 0)) for place in range(PASSAGES)] for query in range(QUERIES)]
    labels += [[0] * PASSAGES, [1] * PASSAGES]
    return [
        Group(str(n), f"query {n}", tuple(Passage(f"{texts} {n}.{place}", label=label) for place, label in enumerate(row)))
        for n, row in enumerate(labels)
    ]


def system(name: str, role: Any, strength: float, of: list[Group], seed: int) -> System:
    rng = np.random.default_rng(seed)
    scores = [strength * np.asarray([p.label or 0 for p in g.passages]) + rng.normal(size=len(g.passages)) for g in of]
    return System(name, role, [values.astype(np.float32) for values in scores])


def evaluation(before: float = 0.3, after: float = 2.5, settings: dict[str, Any] | None = None, **more: Any) -> Evaluation:
    of = more.get("of") or groups()
    systems = [
        system("student", "before", before, of, 1),
        system("student-distilled", "after", after, of, 2),
        system("big teacher", "teacher", 4.0, of, 3),
        system("bm25", "baseline", 0.2, of, 4),
    ]
    return evaluate(of, systems, settings=settings)


def html_of(evaluation: Evaluation, folder: Path) -> str:
    write_report(evaluation, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def words(html: str) -> str:
    """What a reader sees, with single spaces."""
    body = html.partition("</style>")[2]
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body))).strip()


def test_it_says_the_change_its_interval_and_its_p_as_measured(tmp_path: Path) -> None:
    measured = evaluation(settings=SETTINGS)
    read = words(html_of(measured, tmp_path))
    change = change_table(measured)[0]
    brief = f"{change.before:.3f} → {change.after:.3f} (+{change.absolute:.3f}".replace("0.", ".")
    assert f"MAP {brief}, p < .0001) on 40 held-out queries" in read
    for change in change_table(measured):
        paired = measured.comparisons[change.measure]
        row = f"{change.before:.4f} {change.after:.4f} {change.absolute:+.4f} {change.relative:+.1%} "
        assert row + f"{paired.low:+.4f} to {paired.high:+.4f} {p_value(change.p)}" in read
    assert read.index("Before and after") < read.index("All systems") < read.index("Queries gained") < read.index("Notes")


def test_the_gap_closed_is_the_share_of_the_way_to_the_teacher(tmp_path: Path) -> None:
    measured = evaluation()
    means = measured.means()
    before, after, teacher = (means[name]["AP"] for name in ("student", "student-distilled", "big teacher"))
    read = words(html_of(measured, tmp_path))
    assert f"{(after - before) / (teacher - before):.0%} of the way in MAP" in read
    assert "teacher, the ceiling" in read


def test_a_teacher_that_is_not_better_leaves_no_gap(tmp_path: Path) -> None:
    of = groups()
    systems = [("a", "before", 3.0), ("b", "after", 3.5), ("t", "teacher", 0.0)]
    measured = evaluate(of, [system(name, role, strength, of, 5) for name, role, strength in systems])
    assert "there was no gap to close" in words(html_of(measured, tmp_path))


def test_what_is_not_shown_is_not_claimed(tmp_path: Path) -> None:
    unclear = evaluation(before=1.0, after=1.05)
    assert unclear.comparisons["AP"].p >= 0.05
    assert headline(unclear).endswith(": a difference is not shown")
    assert "ranks better" not in words(html_of(unclear, tmp_path))


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    worse = evaluation(before=2.5, after=0.3)
    assert headline(worse).startswith("MAP got worse: .")
    assert "(−." in headline(worse)
    read = words(html_of(worse, tmp_path))
    assert "The student ranks worse after training" in read
    assert "was not closed: it grew by" in read


def test_only_a_recipe_makes_the_queries_held_out() -> None:
    assert headline(evaluation()).endswith("on 40 queries")
    assert headline(evaluation(settings={"recipe": "name: x"})).endswith("on 40 held-out queries")


def test_texts_cannot_change_the_page(tmp_path: Path) -> None:
    of = [dataclasses.replace(group, query=f"{group.query} {NASTY}") for group in groups(NASTY)]
    html = html_of(evaluation(of=of, settings=SETTINGS | {"extra": "<script>"}), tmp_path)
    assert "<script" not in html
    assert "<b>title" not in html
    assert "<i>rule" not in html
    assert "&lt;script&gt;alert" in html
    assert "\x00" not in html
    assert "        print(i)" in html, "code keeps its indentation"
    assert "你好 🙂" in html


def test_nothing_is_fetched(tmp_path: Path) -> None:
    html = html_of(evaluation(settings=SETTINGS), tmp_path)
    assert not re.search(r"https?://|<link|<img|<script|@import|url\(|src=", html)


def test_long_texts_are_cut(tmp_path: Path) -> None:
    html = html_of(evaluation(of=groups("long " * 400)), tmp_path)
    assert "long " * 115 in html
    assert "long " * 125 not in html
    assert " …" in html


def test_gains_and_losses_are_counted_and_listed_from_the_biggest(tmp_path: Path) -> None:
    measured = evaluation(before=1.0, after=1.3)
    html = html_of(measured, tmp_path)
    change = measured.measured["student-distilled"].values["AP"] - measured.measured["student"].values["AP"]
    change = change[~np.isnan(change)]
    read = words(html)
    assert f"{(change > 0).sum()} won {(change == 0).sum()} tied {(change < 0).sum()} lost" in read
    for kind, expected in (("up", np.sort(change)[::-1][:8]), ("down", np.sort(change)[:8])):
        listed = re.findall(rf'<span class="delta {kind}">([^<]+)</span>', html)
        assert [float(text.replace("−", "-")) for text in listed] == pytest.approx(expected.tolist(), abs=6e-4)


def test_an_example_shows_where_the_positive_stood(tmp_path: Path) -> None:
    of = [Group("0", "how?", tuple(Passage(text, label=int(text == "yes")) for text in ("no", "nay", "yes", "not")))]
    scores = {"before": [4, 3, 1, 2], "after": [3, 2, 4, 1], "teacher": [4, 2, 3, 1]}
    systems = [System(role, role, [np.asarray(values, dtype=np.float32)]) for role, values in scores.items()]  # type: ignore[arg-type]
    html = html_of(evaluate(of, systems), tmp_path)
    read = words(html)
    assert "rank: before 4 → after 1 → teacher 2 ✓ positive yes" in read
    assert "Ranked first before other no other nay other not Ranked first after ✓ positive yes other no other nay" in read
    assert "AP: before 0.250 → after 1.000 → teacher 0.500" in read
    assert "MAP .250 → 1.000 (+.750, no test) on 1 query: a difference is not shown" in read


def test_it_reads_without_before_after_teacher_and_settings(tmp_path: Path) -> None:
    of = groups()
    measured = evaluate(of, [system("one", "model", 1.0, of, 1), system("two", "model", 2.0, of, 2)], ("nDCG@10", "RR@10"))
    html = html_of(measured, tmp_path)
    read = words(html)
    assert "2 systems on the same candidates, 40 queries" in read
    assert "NDCG@10 MRR@10 ties" in read
    for absent in ("Before and after", "Queries gained", "How the scores", "Training", "Recipe", "teacher"):
        assert absent not in read
    assert "<svg" not in html


def test_figures_are_labelled_and_follow_what_was_recorded(tmp_path: Path) -> None:
    html = html_of(evaluation(settings=SETTINGS), tmp_path)
    figures = re.findall(r'<svg class="\w+" viewBox="[^"]+" role="img">\n<title>[^<]+</title>', html)
    assert len(figures) == html.count("<svg") == 1 + 3 + 2
    assert not re.search(
        r"\b(nan|inf)\b", re.sub(r"<title>.*?</title>", "", "".join(re.findall(r"(?s)<svg.*?</svg>", html)))
    )
    broken = TRAINING | {"loss": [{"step": 1, "loss": float("nan")}], "agreement": [], "result": None}
    assert html_of(evaluation(settings={"training": broken}), tmp_path).count("<svg") == 4


def test_notes_ties_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    read = words(html_of(evaluation(settings=SETTINGS), tmp_path))
    assert "The labels were made by <i>rule</i>, not by people." in read
    assert "2 of 42 queries are left out of every mean" in read
    assert "ordered by a hash" in read
    assert "strategy: all_pairs" in read
    assert "train 75.2 812" in read
    assert "mine 0.5 –" in read
    assert '"device": "cpu"' in read
    of = groups()
    same = System("constant", "model", [np.zeros(len(group.passages), dtype=np.float32) for group in of])
    assert "100.00%" in words(html_of(evaluate(of, [same]), tmp_path))


def test_a_failed_report_leaves_the_older_one(tmp_path: Path) -> None:
    html_of(evaluation(), tmp_path)
    with pytest.raises(TypeError):
        write_report(evaluation(settings={"stages": [{"stage": "x", "seconds": "soon"}]}), tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_ticks_are_round_and_inside() -> None:
    assert ticks(0, 1) == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert ticks(-3.2, 9.1) == [0, 5]


def test_many_queries_make_no_large_figure() -> None:
    assert len(changes(np.random.default_rng(0).normal(size=100_000), "AP")) < 40_000
    assert "NaN" not in changes(np.zeros(3), "AP")


def test_the_moving_average_keeps_a_constant_to_its_ends() -> None:
    assert moving_average([2.0] * 35) == pytest.approx([2.0] * 35)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_a_browser_draws_it(tmp_path: Path) -> None:
    write_report(evaluation(settings=SETTINGS), tmp_path / "report.html")
    picture = tmp_path / "report.png"
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}", "--window-size=1200,2400", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    data = picture.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24]) == (1200, 2400)
    assert len(data) > 40_000
