"""Further sets for the quality bench, made of what Debian's and Python's packages say about themselves; nobody labels them.

    python benchmarks/quality/fresh.py FOLDER          # train, validation and test of each set; needs Debian's apt, and pip

packages: a package's one line asks for its long description (Debian). manuals: a manual page's NAME line asks for its
DESCRIPTION (manpages-dev). mathematics and web: the first sentence of a docstring asks for its function (sympy, networkx;
django, sqlalchemy).

A query's own text is always among its 12 candidates; of the others half are BM25's best, a quarter stand in the same file
(or are packages of the same family), the rest are random, all of the same part. A file or family is in one part alone. The
same for the same packages; the digests of the files are printed.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import random
import re
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distilrank.data.bm25 import bm25_index
from distilrank.data.words import words
from distilrank.demo.stdlib import MOST_CHARACTERS, _described, _good
from distilrank.records import Group, Passage, write_groups

WHEELS = {
    "mathematics": ("sympy==1.14.0", "networkx==3.6.1"),
    "web": ("django==5.2.19", "sqlalchemy==2.1.9"),
}
NAMES = ("packages", "manuals", *WHEELS)
SIZES = {"train": 700, "validation": 300, "test": 500}
CANDIDATES = 12


@dataclass(frozen=True)
class Item:
    """A text, what asks for it, and the file or section it stands in."""

    query: str
    passage: str
    place: str


def packages(folder: Path) -> Iterator[Item]:
    """Debian's packages by their descriptions."""
    lists = folder / "lists"
    (lists / "partial").mkdir(parents=True)
    more = ["-o", "Acquire::Languages=en", "-o", f"Dir::State::lists={lists}"]
    subprocess.run(["apt-get", "update", "-q", *more], check=True, capture_output=True)
    for file in sorted(lists.glob("*Translation-en*")):
        read = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(file)], capture_output=True, text=True, check=True)
        for entry in read.stdout.split("\n\n"):
            if found := re.search(r"Package: (\S+)(?s:.+?)^Description-en: (.+)\n((?: .*\n?)+)", entry, re.M):
                text = " ".join(re.sub(r"^ \.?", "", found[3], flags=re.M).split())
                yield Item(found[2].strip(), text[:MOST_CHARACTERS], "-".join(found[1].split("-")[:2]))


def manuals(folder: Path) -> Iterator[Item]:
    """Pages of sections 2 and 3, about what is called from C; the page's own name is left out of the query."""
    subprocess.run(["apt-get", "download", "-q", "manpages-dev"], cwd=folder, check=True, capture_output=True)
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("manpages-dev*.deb"))), str(folder / "pages")], check=True)
    for path in sorted((folder / "pages").rglob("*.gz")):
        page = _plain(gzip.decompress(path.read_bytes()).decode("utf-8", "replace"))
        name = re.search(r"^\.SH NAME\n(.+?)\n\.SH", page, re.M | re.S)
        text = re.search(r"^\.SH DESCRIPTION\n(.+?)(?:\n\.SH|\Z)", page, re.M | re.S)
        if name and text and " - " in name[1]:
            said = " ".join(name[1].split()).split(" - ", 1)[1]
            body = " ".join(re.sub(r"^\.\S*\s?", "", text[1], flags=re.M).split())
            yield Item(said, body[:MOST_CHARACTERS], path.name.removesuffix(".gz"))


def _plain(roff: str) -> str:
    text = re.sub(r"^[.']\\\".*\n|^\.(?:nf|fi|in.*|EX|EE|TH.*|so .*|PP|RS.*|RE|IP.*|ad.*|hy.*|na.*)$", "", roff, flags=re.M)
    text = re.sub(r"\\f[BIRP1234]|\\f\(..|\\[&,/^|%]|\\c$", "", text, flags=re.M)
    return text.replace(r"\-", "-").replace(r"\(em", "-").replace(r"\e", "\\").replace(r"\(aq", "'").replace("\\ ", " ")


def functions(wheels: Sequence[str], folder: Path) -> Iterator[Item]:
    """Described functions of some wheels, without their tests."""
    index = ["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(folder), *wheels]
    subprocess.run(["python3", *index], check=True, capture_output=True)
    for wheel in sorted(folder.glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "code")
    for function in _described(folder / "code"):
        if _good(function):
            yield Item(function.query, function.passage, function.file)


def kept(items: Iterator[Item]) -> list[Item]:
    """Without what asks or answers twice, and without what is too short to say something."""
    seen: set[str] = set()
    found = []
    for item in items:
        beginning = item.passage[:100].lower()
        known = item.query.lower() in seen or beginning in seen
        if not known and len(item.query.split()) >= 4 and len(item.passage) >= 100 and item.query.isascii():
            seen |= {item.query.lower(), beginning}
            found.append(item)
    return found


def parts(items: Sequence[Item]) -> dict[str, list[Item]]:
    """By the place, as many of each part as its queries."""
    total, found = sum(SIZES.values()), {part: [] for part in SIZES}
    for item in items:
        share = int(hashlib.sha1(item.place.encode()).hexdigest()[:8], 16) / 2**32 * total
        part = "train" if share < SIZES["train"] else "validation" if share < total - SIZES["test"] else "test"
        found[part].append(item)
    return found


def groups(part: str, items: Sequence[Item]) -> list[Group]:
    """So many queries of a part, each with its candidates in random order."""
    rng, index = random.Random(part), bm25_index([item.passage for item in items])
    by_place: dict[str, list[int]] = {}
    for number, item in enumerate(items):
        by_place.setdefault(item.place, []).append(number)
    made = []
    for own in rng.sample(range(len(items)), min(SIZES[part], len(items))):
        best = np.argsort(-index.get_scores(words(items[own].query)), kind="stable")[: CANDIDATES + 1].tolist()
        same = by_place[items[own].place]
        chosen = [own]
        sources = ((best, CANDIDATES // 2), (rng.sample(same, len(same)), CANDIDATES // 4))
        for some, most in (*sources, (rng.sample(range(len(items)), min(len(items), 3 * CANDIDATES)), CANDIDATES)):
            chosen += [number for number in some if number not in chosen][: min(most, CANDIDATES - len(chosen))]
        rng.shuffle(chosen)
        passages = tuple(Passage(items[n].passage, id=str(n), label=int(n == own)) for n in chosen)
        made.append(Group(f"{part}-{own}", items[own].query, passages))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sets", nargs="+", default=NAMES, choices=NAMES)
    options = parser.parse_args()
    for name in options.sets:
        with tempfile.TemporaryDirectory() as scratch:
            place = Path(scratch)
            read = {"packages": packages, "manuals": manuals}.get(name)
            split = parts(kept(read(place) if read else functions(WHEELS[name], place)))
        (options.folder / name).mkdir(parents=True, exist_ok=True)
        for part, items in split.items():
            file = options.folder / name / f"{part}.jsonl"
            made = groups(part, items)
            write_groups(file, made)
            print(
                f"{name} {part}: {len(made)} queries of {len(items)}, {hashlib.sha256(file.read_bytes()).hexdigest()[:12]}"
            )


if __name__ == "__main__":
    main()
