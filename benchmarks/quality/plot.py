"""The final comparison as a picture: of each pair and set, MAP before, of the reference, of ours and of the teacher.

    python benchmarks/quality/plot.py benchmarks/quality/results/test.jsonl --ours "ARM" --reference cut "ARM" \\
        --reference whole "ARM" -o docs/quality.svg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from table import read

LEFT, RIGHT, LINE = 190, 680, 30
STYLE = """text{font:13px sans-serif;fill:#222}.paper{fill:#fff}.rule{stroke:#bbb}.ends{stroke:#888;stroke-width:2}
.before{fill:none;stroke:#888;stroke-width:2}.teacher{fill:#888}.reference{fill:#d95f02}.ours{fill:#1b6ca8}
@media(prefers-color-scheme:dark){text{fill:#ddd}.paper{fill:#181818}.rule{stroke:#555}.ours{fill:#5aa9e6}}"""
MARKS = {
    "before": '<circle class="before" cx="{x:.1f}" cy="{y}" r="5"/>',
    "teacher": '<rect class="teacher" x="{left:.1f}" y="{top}" width="9" height="9"/>',
    "reference": '<path class="reference" d="M{x:.1f} {up}l6 10h-12z"/>',
    "ours": '<circle class="ours" cx="{x:.1f}" cy="{y}" r="5.5"/>',
}


def place(value: float) -> float:
    """MAP 0 to 1 across the picture."""
    return LEFT + (RIGHT - LEFT) * value


def mark(kind: str, x: float, y: int) -> str:
    """A system's mark, its middle at x and y."""
    return MARKS[kind].format(x=x, y=y, left=x - 4.5, top=y - 4.5, up=y - 6)


def lines(results: Path, ours: str, references: dict[str, str]) -> list[tuple[str, dict[str, float]]]:
    """Of each pair and set the four means."""
    found = []
    for pair, reference in references.items():
        cells, ends = read(results, pair)
        for name in sorted(cells[ours]):
            arms = {"reference": reference, "ours": ours}
            values = {kind: float(np.mean([row["after"]["AP"] for row in cells[arm][name]])) for kind, arm in arms.items()}
            values |= {kind: ends[name][kind]["AP"] for kind in ("before", "teacher")}
            found.append((f"{pair}, {name}", values))
    return found


def drawn(found: list[tuple[str, dict[str, float]]]) -> str:
    """The SVG, with a title and the numbers as its text alternative."""
    height = 70 + LINE * len(found)
    told = "; ".join(f"{name}: " + ", ".join(f"{kind} {value:.3f}" for kind, value in of.items()) for name, of in found)
    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 {height}" width="720" height="{height}" role="img">',
        f"<title>MAP on test queries</title><desc>{told}</desc><style>{STYLE}</style>",
        f'<rect class="paper" width="720" height="{height}"/>',
    ]
    legend = {"before": "before", "reference": "reference (b)", "ours": "ours", "teacher": "teacher"}
    for x, (kind, name) in zip((LEFT, LEFT + 100, LEFT + 240, LEFT + 320), legend.items(), strict=True):
        svg.append(mark(kind, x, 20) + f'<text x="{x + 12}" y="25">{name}</text>')
    for tick in (0, 0.2, 0.4, 0.6, 0.8, 1):
        svg.append(f'<path class="rule" d="M{place(tick):.1f} 40V{height - 25}"/>')
        svg.append(f'<text x="{place(tick):.1f}" y="{height - 8}" text-anchor="middle">{tick:g}</text>')
    for number, (name, of) in enumerate(found):
        y = 56 + LINE * number
        svg.append(f'<text x="{LEFT - 15}" y="{y + 4}" text-anchor="end">{name}</text>')
        svg.append(f'<path class="ends" d="M{place(of["before"]):.1f} {y}H{place(of["teacher"]):.1f}"/>')
        svg += [mark(kind, place(of[kind]), y) for kind in ("before", "teacher", "reference", "ours")]
    return "\n".join([*svg, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--reference", nargs=2, action="append", required=True, metavar=("PAIR", "ARM"))
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    found = lines(options.results, options.ours, dict(options.reference))
    options.output.write_text(drawn(found), encoding="utf-8")


if __name__ == "__main__":
    main()
