"""What the page shows of comparisons.csv, and the reasons of rows that ran: as text, and in a browser."""

import re
import subprocess

import numpy as np
import pytest

from cachebench.files import atomic
from cachebench.judge import pairs, published, results, validity
from cachebench.report import tables, typeset
from cachebench.report.page import collect, compared, render
from checkouts import python
from helpers import unpacked
from judge.test_pairs import example
from report.pages import click, visit, write_results

FEW = "64 images for 64 dimensions, so that most of it is bias"
REASON = f"fd, fd_minus_full: {FEW}"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """(frame, comparisons.csv) of the run dit-20 at two budgets: better, worse, a tie, one of too few images, one without."""
    frame, scored = example(l2c={0.5: 5.6, 0.8: 5.2}, fora=6.4, random_skip=6.001, fora_spread=6.2, smoothcache=6.3)
    frame.loc[frame.method == "fora_spread", "status"] = "unreachable"
    frame.loc[frame.method == "smoothcache", "reason"] = REASON
    scored["r_1", "smoothcache"][0.5]["count"] = 64
    rows = [row | {"run": "dit-20"} for row in pairs.comparisons(frame, scored)]
    folder = tmp_path_factory.mktemp("compared")
    atomic.write_csv(folder / "comparisons.csv", rows, pairs.columns())
    frame.assign(run="dit-20")[list(results.columns())].to_csv(folder / "results.csv", index=False)
    return tables.read(folder / "results.csv", folder / "comparisons.csv"), folder / "comparisons.csv"


def test_every_comparison_has_its_row_with_difference_verdict_rank_and_worth(written):
    frame, _ = written
    (upper, _), (lower, rows) = compared.groups(frame, "dit-20")
    assert upper.startswith("Budget 0.8: fewer steps are FEWER_STEPS") and lower.startswith("Budget 0.5")
    by_name = {row["name"]: row for row in rows}
    cells = dict(zip((title for title, _ in compared.headings()[1:]), by_name["L2C"]["cells"], strict=False))
    line = frame[(frame.method == "l2c") & (frame.budget == 0.5)].iloc[0]
    low, high = tables.number(line.fd_minus_control_low), tables.number(line.fd_minus_control_high)
    cell = cells["FD − fewer steps"]
    assert (cell["text"], cell["spread"]) == (tables.number(line.fd_minus_control), f"[{low}, {high}]")
    names = ("L2C", "FORA", "RANDOM_SKIP", "FEWER_STEPS", "SMOOTHCACHE")
    assert [by_name[name]["cells"][2]["text"] for name in names] == ["better", "worse", "tie", "–", "–"]
    assert [by_name[name]["cells"][5]["text"] for name in names] == ["1", "4", "3 (2–3)", "2 (2–3)", "–"]
    assert cells["Latent MSE / random"]["text"] == tables.number(line.latent_mse_over_random) != "–"
    assert cells["Equivalent steps"]["text"] == tables.number(line.equivalent_steps) != "–"
    assert by_name["FORA"]["cells"][9]["text"] == "< 10.0"
    assert by_name["SMOOTHCACHE"]["cells"][0]["why"] == "no FD of enough images to be compared"
    assert not by_name["FORA_SPREAD"]["cells"] and by_name["FORA_SPREAD"]["reason"].startswith("unreachable")


def test_where_fd_does_not_rank_its_verdicts_are_grey_and_others_are_not(written):
    """Here it ranks; in the same rows with another answer all that FD says is in doubt, and nothing that the images say."""
    frame = written[0]
    assert set(frame.fd_ranks[(frame.status == "ok") & (frame.method != "full")]) == {"yes"}
    (_, (_, rows)) = compared.groups(frame.assign(fd_ranks="no", below_full="yes"), "dit-20")
    cells = next(row for row in rows if row["name"] == "L2C (below full)")["cells"]
    grey = [i for i, cell in enumerate(cells) if cell.get("why") == "FD does not rank here"]
    assert grey == [0, 1, 2, 3, 4, 5, 9, 10, 12]


def test_a_verdict_says_how_many_images_settled_it(written):
    (_, (_, rows)) = compared.groups(written[0].assign(settled_at=1500), "dit-20")
    assert next(row for row in rows if row["name"] == "L2C")["cells"][2]["spread"] == "settled at 1,500 images"
    (_, (_, rows)) = compared.groups(written[0], "dit-20")
    assert {cells[2]["spread"] for row in rows if (cells := row["cells"])} == {""}


def test_a_run_without_comparisons_has_no_table(written):
    assert compared.groups(written[0].assign(run="x"), "dit-20") == []
    assert compared.groups(tables.tidy(written[0].drop(columns=list(tables.compared()))), "dit-20") == []


def test_the_sentences_are_the_verdicts_of_the_table(written):
    lead, budgets = render.summary(written[0], "dit-20")
    assert lead[0] == "Against fewer steps at the same budget, by FD, of 4 cases: better in 1, worse in 1, a tie in 2."
    assert lead[1:] == ["Better: L2C at 0.5.", "Worse: FORA at 0.5.", "Tie: L2C at 0.8; RANDOM_SKIP at 0.5."]
    text = " ".join(dict(budgets)["0.5"])
    assert "Lowest FD, less its bias: L2C, 5.600 ± 0.100. FD − fewer steps −0.400 [" in text and ": better." in text
    assert "Not closer to the full run than a random choice: " in text and "times its latent MSE" in text
    assert "1 of 6 methods have no number here" in text


def test_of_few_images_no_sentence_says_that_no_control_ran(tmp_path):
    """40 images, as in config/start.yaml: too few for an FD, so that no row names the control that it was compared with."""
    cfg, _ = write_results(tmp_path, ["dit-20"])
    frame, scored = example(l2c={0.5: 5.6, 0.8: 5.2}, fora=6.4, random_skip=6.001)
    frame, scored = frame.assign(count=40), {key: {b: s | {"count": 40} for b, s in of.items()} for key, of in scored.items()}
    rows = [row | {"run": "dit-20"} for row in pairs.comparisons(frame, scored)]
    atomic.write_csv(tmp_path / "comparisons.csv", rows, pairs.columns())
    frame.assign(run="dit-20")[list(results.columns())].to_csv(tmp_path / "results.csv", index=False)
    frame = tables.read(tmp_path / "results.csv", tmp_path / "comparisons.csv")
    assert frame.control.eq("").all() and frame.wilcoxon_verdict.ne("").any()
    assert {heading.partition(": ")[2] for heading, _ in compared.groups(frame, "dit-20")} == {"fewer steps are FEWER_STEPS"}
    lead, budgets = render.summary(frame, "dit-20")
    assert lead == ["By FD no method could be compared with fewer steps at the same budget."]
    assert all("No FD could be compared." in sentences for _, sentences in budgets)
    measures = validity.lines(frame, {})
    data = collect.collect(cfg, frame, tmp_path)
    page = render.render(cfg, frame, tmp_path / "config.yaml", [], tmp_path, data, measures=measures)
    assert not re.search("control ran|No method could", unpacked(page))
    assert "At 50 % of the compute use" in page and "by closeness, since no FD could be compared" in page


def test_where_only_the_control_lacks_an_fd_the_sentence_says_so_and_where_none_ran_that(written):
    frame = written[0]
    lost = frame.assign(control="", verdict="").assign(best=frame.best.mask(frame.method == "fewer_steps", ""))
    text = " ".join(dict(render.summary(lost, "dit-20")[1])["0.5"])
    assert "Its FD could not be compared with that of fewer steps." in text
    alone = lost[lost.method != "fewer_steps"]
    assert "No step-reduction control ran at this budget." in " ".join(dict(render.summary(alone, "dit-20")[1])["0.5"])
    assert compared.groups(alone, "dit-20")[1][0] == "Budget 0.5: no step-reduction control ran"


@pytest.fixture(scope="module")
def html(written, tmp_path_factory):
    """(file, text) of a page of one run, whose FD at 0.5 of l2c is in doubt, and which has no latent MSE there."""
    folder = tmp_path_factory.mktemp("page")
    cfg, frame = write_results(folder, ["dit-20"])
    chosen = (frame.method == "l2c") & (frame.budget == 0.5)
    frame.loc[chosen, "reason"] = REASON
    frame.loc[chosen, ["latent_mse", "latent_mse_low", "latent_mse_high"]] = float("nan")
    frame[list(results.columns())].to_csv(folder / "results.csv", index=False)
    frame = tables.read(folder / "results.csv", written[1])
    data = collect.collect(cfg, frame, folder)
    text = render.render(cfg, frame, folder / "config.yaml", [], folder, data)
    atomic.write_text(folder / "index.html", text)
    return folder / "index.html", unpacked(text)


def test_a_row_that_ran_shows_its_reason_and_greys_what_it_lacks(html):
    row = re.search(r'<tr data-id="dit-20/l2c/0.5".*?</tr>', html[1], re.S)[0]
    assert f'<small class="why">{REASON}</small>' in row
    cell = '<td data-value="([^"]*)" class="lost" title="{}"'
    doubted, absent = (re.findall(cell.format(why), row) for why in (FEW, "not measured"))
    assert len(doubted) == 2 and "nan" not in doubted and set(absent) == {"nan"}  # FD and its difference are shown, in doubt


def test_the_table_sorts_in_a_browser(html, browser):
    visit(browser, html[0])
    names = "[...document.querySelectorAll('table.compared tbody')][4].querySelectorAll('tr:not(.group) th')"
    for column, expected in ((2, ["L2c", "Random skip", "Fora"]), (1, ["Fewer steps", "Fora", "Fora spread"])):
        click(browser, f"table.compared thead th:nth-child({column}) button")
        shown = browser.execute_script(f"return [...{names}].map(one => one.firstChild.textContent.trim())")
        assert shown[: len(expected)] == expected
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_what_results_lack_stands_in_the_tables_and_mixed_counts_in_none(tmp_path):
    """The scripts, from a results.csv without one of its rows and without all of a run, and from one of several counts."""
    cfg, frame = write_results(tmp_path, ["dit-20", "dit-50"])
    lost = (frame.run == "dit-50") | ((frame.method == "l2c") & (frame.budget == 0.8))
    frame[~lost][list(results.columns())].to_csv(tmp_path / "results.csv", index=False)
    scripts, common = (
        atomic.ROOT / "workflow/scripts",
        ["--config", tmp_path / "config.yaml", "--results", tmp_path / "results.csv"],
    )
    out = [tmp_path / f"t/{run}.{ending}" for run in cfg["runs"] for ending in ("md", "tex")]
    tabulate, draw = ([python(), scripts / name, *common, "--out"] for name in ("tables.py", "page.py"))
    subprocess.run([*tabulate, *out], check=True)
    upper, latex, lower, _ = (path.read_text() for path in out)
    assert "L2C at budget 0.8: missing. results.csv has no such row" in upper and "booktabs" in latex
    assert "at budget 1: missing. results.csv has no such row" in lower and "| missing | – |" in lower
    frame.assign(count=np.arange(len(frame)) + 1.0)[list(results.columns())].to_csv(tmp_path / "results.csv", index=False)
    for words in ([*tabulate, *out], [*draw, tmp_path / "index.html", "--figures", tmp_path / "x/pareto.svg"]):
        refused = subprocess.run(words, capture_output=True, text=True)
        assert refused.returncode == 1 and "cannot stand in one comparison" in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr and not (tmp_path / "index.html").exists()


def test_whether_a_run_can_tell_methods_apart_is_a_line_of_the_page_in_words(html, written, tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    (line,) = validity.lines(written[0], {})
    data = collect.collect(cfg, frame, tmp_path)
    lines = [line, line | {"run": "<other>", "fd_ranks": "no"}]
    text = render.render(cfg, frame.assign(fd_ranks="no"), tmp_path / "config.yaml", [], tmp_path, data, measures=lines)
    text = unpacked(text)
    shown = re.findall(r"<li>.*?</li>", text.partition('id="validity"')[2].partition("</section>")[0])
    assert len(shown) == 2 and "<b>dit-20.</b> FD ranks here: " in shown[0] and "can be seen: " in shown[0]
    assert "<b>&lt;other&gt;.</b> FD does not rank here: " in shown[1]
    assert 'title="FD does not rank here">\n<p class="lead">' in text
    assert 'id="validity"' not in html[1] and 'title="FD does not rank here"' not in html[1]


def test_printed_numbers_stand_beside_measured_ones(html, tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    judged = {"measured": "2.271828", "low": "2.2412", "high": "2.3024", "difference": "0.0118", "outcome": "reproduced"}
    common = dict.fromkeys(published.COLUMNS, "") | {"metric": "fid", "published": "2.26", "source": "L2C, Table 1"}
    lines = [common | {"row": "DDIM 50"} | judged, common | {"row": "L2C", "outcome": "not measured", "why": "a <note>"}]
    data = collect.collect(cfg, frame, tmp_path)
    text = render.render(cfg, frame, tmp_path / "config.yaml", [], tmp_path, data, lines)
    first, second = re.findall(r"<tr>.*?</tr>", text.partition('class="printed"')[2].partition("<tbody>")[2], re.S)[:2]
    assert "2.272 <span" in first and "[2.241, 2.302]" in first and "0.0118" in first and "reproduced" in first
    assert "not measured" in second and "a &lt;note&gt;" in second and 'data-value="nan"' in second
    assert "Beside the printed numbers" not in html[1]


def test_the_page_shows_sfid_only_where_an_extractor_gives_it(tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    assert "sfid" not in collect.collect(cfg, frame, tmp_path)["columns"]
    frame = frame.assign(sfid=frame.fd + 1, sfid_low=frame.fd_low, sfid_high=frame.fd_high)
    data = collect.collect(cfg, frame, tmp_path)
    assert data["axes"]["y"][2:] == ["fd", "sfid", "latent_mse"] and list(data["columns"])[1] == "sfid"
    values = next(one for one in data["settings"] if one["id"] == "dit-20/l2c/0.5")["values"]
    assert list(values) == list(data["columns"]) and values["sfid"]["value"] == pytest.approx(values["fd"]["value"] + 1)
    assert "| sFD ↓" in typeset.markdown(tables.build(frame, "dit-20"))
