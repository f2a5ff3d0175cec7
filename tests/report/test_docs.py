"""The documentation: its tables are those of the committed results, its links lead somewhere, its example is a method."""

import re
import subprocess

from cachebench.plugin import loader
from checkouts import ROOT, copy_checkout, python

NAMED = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", "methods/README.md")
FOLDERS = ("docs", "resources", "reference_stats")
PAGES = [*(ROOT / name for name in NAMED), *(page for folder in FOLDERS for page in sorted((ROOT / folder).rglob("*.md")))]


def check(root):
    """Finished process of scripts/docs.py --check in the checkout `root`, output captured."""
    return subprocess.run([python(), root / "workflow/scripts/docs.py", "--check"], capture_output=True, text=True)


def test_every_table_is_that_of_the_committed_results():
    done = check(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_old_table_is_named_and_nothing_is_written(tmp_path):
    page = copy_checkout(tmp_path) / "docs/paper-tables.md"
    old = page.read_text().replace("28.607", "28.608")
    page.write_text(old)
    done = check(tmp_path)
    assert done.returncode == 1 and done.stdout == "docs/paper-tables.md\n", done.stderr
    assert page.read_text() == old


def test_links():
    """Of a link to a file the file, of one to a heading the heading too."""
    lost = [f"{page.relative_to(ROOT)}: {link}" for page in PAGES for link in links(page) if not leads(page, link)]
    assert not lost, lost


def links(page):
    """Targets of a page's links and pictures within the project."""
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.S | re.M)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not re.match(r"\w+:", link)]


def leads(page, link):
    name, _, heading = link.partition("#")
    path = page.parent / name if name else page
    return path.exists() and (not heading or heading in headings(path))


def headings(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in found]


def test_the_printed_plug_in_is_a_method(small_spec, tmp_path):
    text = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    (tmp_path / "early.py").write_text(text)
    cls = loader.load(tmp_path / "early.py")
    assert cls.id() == "early" and cls.grid(small_spec) == {"full": [6, 5, 4, 3, 2, 1]}
    assert cls(full=6).schedule(small_spec).compute.all()
    assert cls(full=2).schedule(small_spec).compute.all(axis=(1, 2)).tolist() == [True, True, True, False, True, False]
