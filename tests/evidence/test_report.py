"""The report says what was measured, no more, and nothing in the texts can change the page."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import yaml

from distilrank.cli import run
from distilrank.evidence import System, change_table, evaluate, load_evaluation, save_evaluation
from distilrank.evidence.answers import gap_closed, headline
from distilrank.evidence.report import SECTIONS, write_report
from distilrank.evidence.wording import p_value
from distilrank.records import Group, Passage
from evidence import samples
from evidence.pages import NASTY, QUERIES, SETTINGS, TRAINING, evaluation, full, groups, html_of, system, words


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


def test_a_gap_that_is_not_shown_is_doubted() -> None:
    assert "is itself not shown" not in gap_closed(evaluation())
    of = groups()
    before, after = system("a", "before", 1.0, of, 5), system("b", "after", 1.4, of, 6)
    better = next(n for n in range(QUERIES) if before.scores[n].argmax() != 0)
    ideal = np.asarray([passage.label for passage in of[better].passages], dtype=np.float32)
    teacher = System("t", "teacher", [ideal if n == better else row for n, row in enumerate(before.scores)])
    assert "That there is a gap is itself not shown" in gap_closed(evaluate(of, [before, after, teacher]))
    assert "closed: 0% of the way" in gap_closed(evaluate(of, [before, System("c", "after", before.scores), teacher]))


def test_a_teacher_that_is_not_better_leaves_no_gap(tmp_path: Path) -> None:
    of = groups()
    systems = [("a", "before", 3.0), ("b", "after", 3.5), ("t", "teacher", 0.0)]
    measured = evaluate(of, [system(name, role, strength, of, 5) for name, role, strength in systems])
    assert "there was no gap to close" in words(html_of(measured, tmp_path))


def test_what_is_not_shown_is_not_claimed(tmp_path: Path) -> None:
    unclear = evaluation(before=1.0, after=1.05)
    assert unclear.comparisons["AP"].p >= 0.05
    assert headline(unclear).endswith(": a difference is not shown")
    read = words(html_of(unclear, tmp_path))
    assert "ranks better" not in read
    assert "training" not in read.partition("They would show")[0], "two models are not known to be one student"
    smallest = f"{unclear.comparisons['AP'].smallest:.3f}".replace("0.", ".")
    assert f"They would show a true difference of {smallest} four times in five." in read


def test_an_unclear_loss_is_not_claimed_either() -> None:
    unclear = evaluation(before=1.0, after=0.9)
    assert unclear.comparisons["AP"].difference < 0
    assert headline(unclear).endswith(": a difference is not shown")
    assert "worse" not in headline(unclear)


def test_a_loss_is_called_a_loss(tmp_path: Path) -> None:
    worse = evaluation(before=2.5, after=0.3, settings=SETTINGS)
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
    blocks = [f'<script type="application/gzip" id="block-{number}">' for number in (0, 1)]
    opened = re.findall(r"<script[^>]*>", html)
    assert opened == ['<script type="application/json" id="queries-data">', *blocks, "<script>"]
    assert html.count("</script") == len(opened)
    assert "<b>title" not in html
    assert "<i>rule" not in html
    assert "&lt;script&gt;alert" in html
    assert "\x00" not in html
    assert "        print(i)" in html, "code keeps its indentation"
    assert "你好 🙂" in html


def test_the_page_may_run_its_own_script_and_no_other(tmp_path: Path) -> None:
    html = html_of(full(), tmp_path)
    (script,) = re.findall(r"(?s)<script>(.*?)</script>", html)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'\"" in html


def test_nothing_is_fetched(tmp_path: Path) -> None:
    assert not re.search(r"https?://|<link|<img|@import|url\(|src=", html_of(full(), tmp_path))


@pytest.mark.parametrize("texts", [True, False])
def test_without_texts_none_is_in_the_file(tmp_path: Path, texts: bool) -> None:
    confidential = full("geheim")
    of = [dataclasses.replace(group, query=f"vertraulich {group.query}") for group in confidential.groups]
    review = [dataclasses.replace(finding, query=f"vertraulich {finding.query}") for finding in confidential.review]
    html = html_of(dataclasses.replace(confidential, groups=of, review=review), tmp_path, texts=texts)
    packed = re.findall(r'<script type="application/gzip"[^>]*>(.*?)</script>', html)
    everything = html + "".join(gzip.decompress(base64.b64decode(block)).decode() for block in packed)
    assert packed
    assert ("geheim" in everything) == ("vertraulich" in everything) == texts
    assert ("It holds no text of the queries and passages." in words(html)) != texts


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
    for kind, expected in (("up", np.sort(change)[::-1][:5]), ("down", np.sort(change)[:5])):
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
    shown = set(re.findall(r'<section[^>]* id="(\w+)"', html))
    assert shown == {"systems", "against", "queries", "retrieval", "levels", "notes", "made"}
    assert "teacher" not in read


def test_one_system_alone_is_a_report_too(tmp_path: Path) -> None:
    of = groups()
    html = html_of(evaluate(of, [system("one", "baseline", 1.0, of, 1)]), tmp_path)
    assert set(re.findall(r'<section[^>]* id="(\w+)"', html)) == {"systems", "queries", "retrieval", "notes", "made"}


def test_a_full_evaluation_fills_every_section(tmp_path: Path) -> None:
    html = html_of(full(), tmp_path)
    shown = set(re.findall(r'<section[^>]* id="(\w+)"', html))
    assert shown == {*SECTIONS, "against", "verdicts"}
    linked = re.findall(r'<dt><a href="#(\w+)">', html)
    assert linked == ["systems", "against", "verdicts", "agreement", "forgetting", "cost", "levels"]
    assert set(linked) <= shown


def test_what_the_other_findings_say_is_what_was_found(tmp_path: Path) -> None:
    found = full()
    read = words(html_of(found, tmp_path))
    test = found.against["bm25"]["AP"]
    interval = f"{test.low:+.4f} to {test.high:+.4f}"
    assert f"bm25 {test.difference:+.4f} {interval} < 0.0001 0.0001 < 0.0001 {test.smallest:.4f} better" in read
    agreement = found.agreement["student-distilled"]
    assert f"student-distilled {agreement.kendall_tau:.4f} {agreement.ndcg:.4f} {agreement.top1:.1%}" in read
    (line,) = found.forgetting
    assert line.loss > 0
    changed = f"{-line.paired.high:+.4f} to {-line.paired.low:+.4f} < 0.0001 forgot".replace("-", "−")
    assert f"far away MAP 40 {line.before:.4f} {line.after:.4f} {line.loss:+.4f} {changed}" in read
    assert (
        "student-distilled cpu, 2 threads 100 8 12 ms 20 ms 640 1,500 33 M 66 MB a GPU, bfloat16 100 8 2.5 ms 3.0 ms" in read
    )
    assert "big teacher cpu, 2 threads 100 8 500 ms 20 ms 640 1,500 – –" in read
    assert "12 ms for a query with 8 candidates (median, cpu, 2 threads); its teacher 500 ms." in read
    level = found.levels["student-distilled"]
    numbers = f"{level.auc:.4f} {level.auc_within:.4f} {level.threshold:.3f} {level.precision:.3f} {level.recall:.3f}"
    assert f"student-distilled {numbers} {level.f1:.3f}".replace("-0.", "−0.") in read
    assert found.retrieval is not None
    assert "first k 1 5 8 recall " + " ".join(f"{value:.3f}" for value in found.retrieval.recall.values()) in read
    assert found.diagnostics is not None
    assert f"perhaps false negatives {found.diagnostics.false_negatives} passages" in read


def test_without_labels_it_speaks_of_agreement_and_not_of_quality(tmp_path: Path) -> None:
    of = samples.groups()
    bare = evaluate(samples.unlabelled(of), samples.systems(of))
    first, last = (bare.agreement[name].ndcg for name in ("before", "after"))
    assert headline(bare).startswith(f"Agreement with the teacher (nDCG@10) {first:.3f} → {last:.3f}".replace("0.", "."))
    html = html_of(bare, tmp_path)
    assert "this is agreement with the teacher, and says nothing about quality" in words(html)
    shown = set(re.findall(r'<section[^>]* id="(\w+)"', html))
    assert shown == {"agreement", "verdicts", "queries", "teacher", "notes", "made"}
    assert "MAP" not in words(html)


def test_a_folder_gives_the_report_that_its_evaluation_gave(tmp_path: Path) -> None:
    found = dataclasses.replace(full(), settings={})
    save_evaluation(found, tmp_path / "eval")
    assert html_of(load_evaluation(tmp_path / "eval"), tmp_path) == html_of(found, tmp_path)


def test_every_term_has_its_definition_and_every_definition_a_term(tmp_path: Path) -> None:
    html = html_of(full(), tmp_path)
    terms, defined = (
        set(re.findall(r'popovertarget="([\w-]+)"', html)),
        re.findall(r'<div popover class="means" id="([\w-]+)"', html),
    )
    assert terms == set(defined)
    known = yaml.safe_load((files("distilrank.evidence") / "templates/definitions.yaml").read_text(encoding="utf-8"))
    assert {f"means-{key}" for key in known} - terms == {"means-measure"}, "only for measures beyond the usual ones"
    of = groups()
    assert "means-measure" in html_of(evaluate(of, [system("one", "model", 1.0, of, 1)], ["P@3"]), tmp_path)


def test_figures_are_labelled_and_follow_what_was_recorded(tmp_path: Path) -> None:
    html = html_of(full(), tmp_path)
    drawn = re.findall(r"(?s)<svg.*?</svg>", html)
    labelled = r'<svg class="\w+" viewBox="[^"]+" role="img">\n<title>[^<]{5,}</title>\n<desc>[^<]{5,}</desc>'
    assert all(re.match(labelled, svg) for svg in drawn)
    assert len(drawn) == 1 + 1 + 2 + 2 + 3 + 2 + 3, "differences, changes, latency, retrieval, scores, teacher, training"
    assert not any(re.search(r"\b(nan|inf)\b", re.sub(r"(?s)<title>.*</desc>", "", svg)) for svg in drawn)
    broken = TRAINING | {"loss": [{"step": 1, "loss": float("nan")}], "agreement": [], "result": None}
    bare = dataclasses.replace(full(), settings={"training": broken})
    assert html_of(bare, tmp_path).count("<svg") == len(drawn) - 3


def test_the_kept_model_is_marked_where_the_record_tells(tmp_path: Path) -> None:
    assert "that of step" not in html_of(full(), tmp_path)
    result = TRAINING["result"] | {"agreement_after": TRAINING["agreement"][2]["agreement"]}  # type: ignore[operator, index]
    kept = dataclasses.replace(full(), settings={"training": TRAINING | {"result": result}})
    html = html_of(kept, tmp_path)
    assert "it chose the model that was kept, that of step 150." in words(html)
    assert html.count('<circle class="kept"') == 1


def test_notes_ties_and_what_is_left_out_are_told(tmp_path: Path) -> None:
    read = words(html_of(evaluation(settings=SETTINGS), tmp_path))
    assert "The labels were made by <i>rule</i>, not by people." in read
    assert "2 of 42 queries are left out of every mean: 1 have no positive passage, 1 nothing else." in read
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


def test_the_command_leaves_texts_out_where_it_is_asked_to(tmp_path: Path) -> None:
    save_evaluation(full("geheim"), tmp_path / "eval")
    for options, held in (([], True), (["--no-texts"], False)):
        assert run(["report", str(tmp_path / "eval"), "-o", str(tmp_path / "report.html"), *options]) == 0
        assert ("geheim" in (tmp_path / "report.html").read_text(encoding="utf-8")) == held
