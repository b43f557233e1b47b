"""MAP on human labels that training never sees: the path from a corpus alone, on a labelled set.

    python benchmarks/hidden_labels.py [--set askubuntu_dup|cosqa] [--passages N] [--test-queries N] [--depth 8] [-o FOLDER]

The set's passages are the corpus, those that are also test queries left out; its labels and its training queries are thrown
away. A language model writes queries to some of the passages, the queries that find their passage again get candidates, the
teacher scores these, the student learns: by the recipe `corpus-only` on the demo's models. Labels are read to measure the
student before and after. JSON lines: what was made, each system's means, and after minus before by the paired test. The set
lies in `$DISTILRANK_DATA` (default ../shared/data). With `-o` a killed run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from distilrank.data.corpus import Corpus, Document, read_corpus, write_corpus, write_queries
from distilrank.demo.sizes import cpu_tier
from distilrank.engines.load import device_of
from distilrank.evidence import load_evaluation
from distilrank.pipeline import run_recipe
from distilrank.pipeline.ask import resolve_model
from distilrank.pipeline.corpus import retrievers, written_queries
from distilrank.recipe import load_recipe
from distilrank.recipe_data import QueriesSpec, RetrievalSpec
from distilrank.records import read_groups, write_groups
from distilrank.stages import stage_times

DATA = Path(os.environ.get("DISTILRANK_DATA", "../shared/data"))
SAME_QUESTION = """\
name: same-question
source: query likelihood, Sachan et al. 2022 (arXiv 2204.07496)
pieces:
  - "<|im_start|>user\\nAsk the same question in other words.\\n\\n"
  - "{passage}"
  - "<|im_end|>\\n<|im_start|>assistant\\n"
  - "{query}"
"""


@dataclass(frozen=True)
class Set:
    """How a set's queries are written and scored; by default, how many passages are asked about and how many of the test
    queries are measured (none: all), on a GPU or a CPU that multiplies bfloat16 in hardware, and on a CPU that does not.
    """

    template: str
    teacher: str
    fast: tuple[int, int | None]
    slow: tuple[int, int | None]

    @property
    def sizes(self) -> tuple[int, int | None]:
        """What about 15 minutes of two cores of this machine are enough for; on a GPU, minutes."""
        return self.slow if device_of() == "cpu" and cpu_tier() == "float32" else self.fast


SETS = {
    "askubuntu_dup": Set("duplicate-question", "same-question", (800, None), (200, 150)),
    "cosqa": Set("code", "chatml-docstring", (500, None), (100, 50)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", choices=SETS, default="askubuntu_dup")
    parser.add_argument("--passages", type=int, help="so many are asked about; default: by the CPU")
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--test-queries", type=int, help="only the first so many; default: by the CPU")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set-recipe", action="append", default=[], metavar="KEY=VALUE", help="as `run --set` takes it")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    options.passages = options.passages or SETS[options.set].sizes[0]
    options.test_queries = options.test_queries or SETS[options.set].sizes[1]
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.output or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        made = make_queries(options, folder)
        run = folder / "run"
        run_recipe(load_recipe("corpus-only", changes(options, folder, run)))
        evaluation = load_evaluation(run / "evaluation")
        common = {"set": options.set, "seed": options.seed, "device": device_of()}
        print(json.dumps(common | made | {"seconds": round(time.perf_counter() - start)}))
        print(json.dumps(common | {"stages": {stage["stage"]: stage["seconds"] for stage in stage_times(run)}}))
        for system, means in evaluation.means().items():
            print(json.dumps(common | {"system": system} | {name: round(mean, 4) for name, mean in means.items()}))
        for measure, test in evaluation.comparisons.items():
            numbers = {name: None if value != value else value for name, value in asdict(test).items()}  # JSON has no NaN
            print(json.dumps(common | {"after minus before": measure} | numbers | {"shown": test.shown}))


def make_queries(options: argparse.Namespace, folder: Path) -> dict[str, int]:
    """The corpus, the queries that were written to it, and the test set, as files of the folder; how many there are."""
    test = list(read_groups(DATA / options.set / "test.jsonl"))
    asked_in_test = {group.query for group in test}
    passages = [text for text in dict.fromkeys(texts(options.set)) if text not in asked_in_test]
    write_groups(folder / "test.jsonl", test[: options.test_queries])
    write_corpus(folder / "corpus.jsonl", (Document(f"p{number}", text) for number, text in enumerate(passages)))
    # The writer is shown a question with its body; candidates are the titles alone, as in the test set.
    body = bodies(options.set)
    shown = (
        Document(f"p{number}", body[text], text) if text in body else Document(f"p{number}", text)
        for number, text in enumerate(passages)
    )
    spec = QueriesSpec(llm="demo:llm", template=SETS[options.set].template, count=options.passages)
    found_by = RetrievalSpec(retriever="hybrid", embedder="demo:embedder")
    resolve = partial(resolve_model, offline=False)
    with Corpus(read_corpus(folder / "corpus.jsonl")) as corpus, Corpus(shown) as whole:
        finders = retrievers(corpus, found_by, folder / "vectors", resolve)
        queries = written_queries(spec, whole, finders, folder / "queries", resolve, options.seed)
    write_queries(folder / "queries.jsonl", queries)
    both = sum(query.text in asked_in_test for query in queries)
    return {
        "passages": len(passages),
        "asked about": options.passages,
        "queries": len(queries),
        "of them test queries": both,
    }


def changes(options: argparse.Namespace, folder: Path, run: Path) -> list[str]:
    """The recipe `corpus-only` for these files."""
    (folder / "same-question.yaml").write_text(SAME_QUESTION, encoding="utf-8")
    teacher = SETS[options.set].teacher
    own = teacher == "same-question"
    settings = {
        "data.corpus.documents": None,
        "data.corpus.write": None,
        "data.corpus.passages": str(folder / "corpus.jsonl"),
        "data.corpus.queries": str(folder / "queries.jsonl"),
        "data.corpus.depth": options.depth,
        "data.test": str(folder / "test.jsonl"),
        "teacher.members.0.template": str(folder / "same-question.yaml") if own else teacher,
        "evaluate.latency": 0,
        "score.store": str(folder / "scores"),
        "output": str(run),
        "seed": options.seed,
    }
    return [*(f"{name}={json.dumps(value)}" for name, value in settings.items()), *options.set_recipe]


def texts(name: str) -> Iterator[str]:
    """The passages of every part of a set."""
    for file in sorted((DATA / name).glob("t*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield from (*row["positive"], *row["negative"])


def bodies(name: str) -> dict[str, str]:
    """What stands below a question's title, where the set has it."""
    file = DATA / name / "bodies.jsonl"
    if not file.exists():
        return {}
    rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
    return {row["title"]: row["body"] for row in rows if row["body"].strip()}


if __name__ == "__main__":
    main()
