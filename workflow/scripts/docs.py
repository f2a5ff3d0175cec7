"""Rewrites the tables of README.md and docs/*.md, and a picture of docs/, from files in resources/; with --check it only names
pages that are old.

A table stands between a line `<!-- generated: NAME -->` and a line `<!-- end -->`; the names are in BLOCKS."""

import re
import sys
from collections import Counter
from functools import partial

from _cli import arguments
from _measured import (
    batches,
    coverage,
    demo_jobs,
    desk,
    efficiency,
    full_size,
    hours,
    printed,
    sampled_rows,
    settling,
    speed,
    targets,
    trained,
)
from _results import (
    BENCHMARKS,
    answer,
    beside,
    card,
    comparisons,
    every_method,
    findings,
    guidance,
    macs,
    measures,
    more_methods,
    one_setting,
    parts,
    results,
    transferred,
)
from cachebench.desk import shown, template
from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.plugin.method import FAMILIES
from cachebench.report import figures, style
from cachebench.report import markdown as md
from cachebench.report.files_of_run import Files

PAGES = [
    *(atomic.ROOT / f"{where}README.md" for where in ("", "methods/", "resources/weights/")),
    *sorted((atomic.ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n)(?:(?!<!-- generated: ).)*?(<!-- end -->)", re.S)
FAMILY_WORDS = {
    "fixed interval": "{n} compute at fixed intervals",
    "calibrated plan": "{n} follow a plan that is calibrated",
    "forecast": "{n} forecast what they skip",
    "run-time": "{n} decide while they run",
    "tokens": "{n} compute some tokens",
    "trained": "{n} are trained",
}


def methods():
    """Every file in methods/, as its class and the first line of its docstring describe it; caches first, by family."""
    lines = []
    for stem in loader.available():
        cls = loader.load(loader.file_of(stem))
        variants = f", {', '.join(cls.params[cls.variants])}" if cls.variants else ""
        cells = [f"`{stem}`{variants}", md.escape(shown.sentence(cls)), cls.family(), cls.effort(), cls.reference]
        lines.append((FAMILIES.index(cls.family()), cells))
    lines.sort(key=lambda line: line[0])
    return md.table(["Name", "What it does", "Family", "Needs", "Source"], [line for _, line in lines])


def families():
    """How many methods there are of which family, in a sentence."""
    classes = [loader.load(path) for path in loader.available().values()]
    counts = Counter(cls.family() for cls in classes)
    told = [FAMILY_WORDS[name].format(n=counts[name]) for name in FAMILIES[:-1] if counts[name]]
    return (
        f"There are {counts.total() - counts[FAMILIES[-1]]} caching methods: {', '.join(told[:-1])}, and {told[-1]}.\n"
        f"{counts[FAMILIES[-1]]} controls stand beside them."
    )


def new_method():
    """What `cachebench new` writes."""
    return f"```python\n{template.text('early', 'schedule')}```"


def shown_method():
    """What `cachebench show` prints of a method, on the demo's first run."""
    ((run, spec), *_) = shown.runs().items()
    return "\n".join(["```", *shown.shown("fora", run, spec, {"interval": "3"}), "```"])


def listed_methods():
    """The first lines that `cachebench list` prints."""
    return "\n".join(["```", *shown.listed(shown.specs())[:8], "...", "```"])


BLOCKS = {
    "answer": answer,
    "families": families,
    "new-method": new_method,
    "show-method": shown_method,
    "list-methods": listed_methods,
    "try-method": partial(printed, "try"),
    "check-method": partial(printed, "check"),
    "methods": methods,
    "demo-validity": partial(measures, "demo"),
    "every-method-validity": partial(measures, *BENCHMARKS),
    "every-method": every_method,
    "findings": findings,
    "beside-by-fd": partial(beside, "fd"),
    "beside-by-closeness": partial(beside, "closeness"),
    "parts": parts,
    "comparisons": comparisons,
    "more-methods": more_methods,
    "macs": macs,
    "transfer": transferred,
    "speed": speed,
    "targets": targets,
    "coverage": coverage,
    "settling": settling,
    "hours": hours,
    "full-size": full_size,
    "demo-jobs": demo_jobs,
    "one-setting": one_setting,
    "batches": batches,
    "efficiency": efficiency,
    "trained": trained,
    "sampled_rows": sampled_rows,
    "desk": desk,
    "card-dit-fmnist": partial(card, "dit-fmnist"),
    "card-uvit-fmnist": partial(card, "uvit-fmnist"),
    "card-sit-fmnist": partial(card, "sit-fmnist"),
    "card-dit-cifar10-small": partial(card, "dit-cifar10-small"),
    "guidance": guidance,
}


def current(path):
    """The page's text as it should be. SystemExit in one line if a block has no end or another name."""
    text = path.read_text("utf-8")
    names = [name for _, name, _ in BLOCK.findall(text)]
    wrong = [f"unknown block {name!r}; allowed: {', '.join(BLOCKS)}" for name in names if name not in BLOCKS]
    if len(names) != text.count("<!-- generated: "):
        wrong.append("a block has no end")
    if wrong:
        raise SystemExit(f"{path.relative_to(atomic.ROOT)}: {wrong[0]}")
    return BLOCK.sub(lambda block: f"{block[1]}\n{BLOCKS[block[2]]().strip()}\n\n{block[3]}", text)


arguments(__doc__, "check*")  # which takes no values
check = "--check" in sys.argv
pages = {path: current(path) for path in PAGES}
old = [path for path, text in pages.items() if text != path.read_text("utf-8")]
for path in old:
    print(path.relative_to(atomic.ROOT))
    if not check:
        atomic.write_text(path, pages[path])
if not check:
    figure = figures.load("agreement").draw(Files({}, None, atomic.ROOT, results()))
    style.save(figure, [atomic.ROOT / "docs/pictures/agreement.png"])
if check and old:
    raise SystemExit("These pages have old tables; `python workflow/scripts/docs.py` makes them anew.")
