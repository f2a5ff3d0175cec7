"""A figure is one file: what it has to say, and that a file more in the folder is drawn, planned and printed."""

import re
import sys

import pytest
import yaml

from cachebench.files import atomic, closure
from cachebench.report import figures, style
from cachebench.report.files_of_run import Files
from checkouts import copy_checkout, snakemake
from report.pages import write_page, write_results

FOLDER = atomic.ROOT / "workflow/cachebench/report/figures"
ADDED = '''"""How many rows there are."""

from matplotlib import pyplot

TITLE = "Rows & counts"
CAPTION = "How many rows of results.csv there are."
PER = "{per}"


def table(files):
    return ("Run", "Rows"), [(files.run or "all", str(len(files.frame)))]


def draw(files):
    figure, axis = pyplot.subplots()
    axis.bar(files.run or "all", len(files.frame))
    return figure
'''


@pytest.mark.parametrize("figure", figures.available(), ids=lambda figure: figure.name)
def test_a_figure_says_what_it_is(figure):
    assert figure.title and 1 <= len(re.findall(r"\.(?= [A-Z]|$)", figure.caption)) <= 3 and figure.caption.endswith(".")
    assert callable(figures.load(figure.name).draw)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TITLE = 'a'\nPER = 'run'", "has to have CAPTION"),
        ("TITLE, CAPTION, PER = 'a', 'b', 'day'", "PER is 'day'; allowed: run, all"),
    ],
)
def test_a_file_that_lacks_something_is_named(text, words, tmp_path):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(ValueError, match=f"bad.py: .*{words}"):
        figures.read(tmp_path / "bad.py")


def test_what_is_said_is_read_without_what_draws(tmp_path):
    text = ADDED.format(per="all") + "\n\ndef wanted(cfg):\n    return cfg['on']\n"
    (tmp_path / "added.py").write_text(
        text.replace("from matplotlib import", "import no_such_library\nfrom no_such_library import")
    )
    figure = figures.read(tmp_path / "added.py")
    assert (figure.name, figure.per, figure.embed) == ("added", "all", "svg") and figure.wanted({"on": 1})
    assert not figure.wanted({"on": 0})


def test_no_job_but_the_plots_and_the_page_depends_on_a_figure():
    files = {path for path in FOLDER.glob("*.py") if path.stem != "__init__"}
    for script in (atomic.ROOT / "workflow/scripts").glob("*.py"):
        assert not closure.closure([script]) & files, script


@pytest.fixture
def added(tmp_path, monkeypatch):
    """added(per): a file more in the folder of figures."""
    (tmp_path / "more").mkdir()
    monkeypatch.setattr(figures, "__path__", [*figures.__path__, str(tmp_path / "more")])
    yield lambda per: (tmp_path / "more/added.py").write_text(ADDED.format(per=per))
    sys.modules.pop(f"{figures.__name__}.added", None)
    vars(figures).pop("added", None)


@pytest.mark.parametrize(("per", "run"), [("run", "dit-20"), ("all", None)])
def test_a_file_more_is_drawn_and_stands_on_the_page(per, run, added, tmp_path):
    added(per)
    cfg, frame = write_results(tmp_path, ["dit-20"])
    assert "added" in [figure.name for figure in figures.wanted(cfg, per)]
    files = Files(cfg, run, tmp_path, frame)
    paths = [files.tree.figure("added", ending, run) for ending in ("png", "svg")]
    style.save(figures.load("added").draw(files), paths)
    html = write_page(tmp_path, cfg, frame, paths)[0].read_text()
    (shown,) = re.findall(r'<figure class="added">.*?</figure>', html, re.S)
    assert (
        "How many rows of results.csv there are." in shown and f"<td>{len(frame)}</td>" in shown and "data:image/svg" in shown
    )
    heading = "<h3>Rows &amp; counts</h3>" if run else '<h2 id="added">Rows &amp; counts</h2>'
    assert heading in html and shown.count("<h3>") == bool(run)
    assert {f'href="{path.partition(f"{tmp_path}/")[2]}"' in shown for path in paths} == {True}


def test_a_file_more_is_planned_for_every_run_and_for_the_page(tmp_path):
    """By Snakemake, in a checkout in which that file is all that is new. This configuration has no figure of all runs."""
    copy_checkout(tmp_path)
    (tmp_path / "workflow/cachebench/report/figures/added.py").write_text(ADDED.format(per="run"))
    values = yaml.safe_load((tmp_path / "config/smoke.yaml").read_text())
    values |= {"runs": {"tiny-ddim20": values["runs"]["tiny-ddim20"]}, "methods": ["fora"], "params": {}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    done = snakemake(tmp_path, "-n", "--cores", "1", "--configfile", "small.yaml")
    assert done.returncode == 0, done.stderr
    blocks = re.split(r"^(?:local)?rule ", done.stdout + done.stderr, flags=re.M)
    plots, page = (next(block for block in blocks if block.startswith(f"{rule}:")) for rule in ("plots", "page"))
    for ending in ("png", "svg", "pdf"):
        picture = f"results/smoke/figures/tiny-ddim20/added.{ending}"
        assert picture in re.search(r"output: (.*)", plots)[1] and picture in re.search(r"input: (.*)", page)[1]
