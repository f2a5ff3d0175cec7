"""What the page shows of comparisons.csv, and the reasons of rows that ran: as text, and in a browser."""

import re

import pytest

from cachebench import compare, page, page_compare, page_data, store, tables, verdicts
from test_compare import example
from test_page import browser, click, visit, write_results  # noqa: F401

REASON = "fd: 64 images for 64 dimensions, so that most of it is bias"


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """comparisons.csv of the run dit-20 at two budgets: better, worse, a tie, one that has no number."""
    frame, scored = example(l2c={0.5: 5.6, 0.8: 5.2}, fora=6.4, random_skip=6.001, fora_spread=6.2)
    frame.loc[frame.method == "fora_spread", "status"] = "unreachable"
    frame.loc[(frame.method == "l2c") & (frame.budget == 0.5), "reason"] = REASON
    rows = [row | {"run": "dit-20"} for row in compare.comparisons(frame.assign(reason=frame.reason.fillna("")), scored)]
    path = tmp_path_factory.mktemp("compared") / "comparisons.csv"
    store.write_csv(path, rows, compare.COLUMNS)
    return page_compare.read(path)


def test_every_comparison_has_its_row_with_difference_verdict_rank_and_worth(compared):
    (upper, _), (lower, rows) = page_compare.groups(compared, "dit-20")
    assert upper.startswith("Budget 0.8: fewer steps are DDIM") and lower.startswith("Budget 0.5")
    by_name = {row["name"]: row for row in rows}
    cells = dict(zip((title for title, _ in page_compare.HEADINGS[1:]), by_name["L2C"]["cells"], strict=False))
    line = compared[(compared.method == "l2c") & (compared.budget == 0.5)].iloc[0]
    low, high = tables.number(line.fd_minus_control_low), tables.number(line.fd_minus_control_high)
    assert cells["FD − fewer steps"][:2] == (tables.number(line.fd_minus_control), f"[{low}, {high}]")
    assert [by_name[name]["cells"][2][0] for name in ("L2C", "FORA", "RANDOM_SKIP", "DDIM")] == ["better", "worse", "tie", "–"]
    assert [by_name[name]["cells"][5][0] for name in ("L2C", "FORA", "RANDOM_SKIP", "DDIM")] == ["1", "4", "2–3", "2–3"]
    assert by_name["L2C"]["cells"][8][0] == tables.number(line.equivalent_steps) != "–"
    assert by_name["L2C"]["reason"].startswith(REASON)
    assert not by_name["FORA_SPREAD"]["cells"] and by_name["FORA_SPREAD"]["reason"].startswith("unreachable")


def test_a_run_without_comparisons_has_no_table(compared):
    assert page_compare.groups(compared, "dit-50") == [] == page_compare.groups(None, "dit-20")


@pytest.fixture(scope="module")
def html(compared, tmp_path_factory):
    """(file, text) of a page of one run, whose FD at 0.5 of l2c comes with a reason and without recall."""
    folder = tmp_path_factory.mktemp("page")
    cfg, frame = write_results(folder, ["dit-20"])
    chosen = (frame.method == "l2c") & (frame.budget == 0.5)
    frame.loc[chosen, "reason"] = REASON
    frame.loc[chosen, ["latent_mse", "latent_mse_low", "latent_mse_high"]] = float("nan")
    data = page_data.collect(cfg, frame, folder)
    text = page.render(cfg, frame, folder / "config.yaml", [], folder, data, compared)
    store.write_text(folder / "index.html", text)
    return folder / "index.html", text


def test_a_row_that_ran_shows_its_reason_and_greys_what_it_lacks(html):
    row = re.search(r'<tr data-id="dit-20/l2c/0.5".*?</tr>', html[1], re.S)[0]
    assert f'<small class="why">{REASON}</small>' in row
    assert f'class="lost" title="{REASON}"' in row


def test_the_table_sorts_in_a_browser(html, browser):  # noqa: F811
    visit(browser, html[0])
    names = "[...document.querySelectorAll('table.compared tbody')][1].querySelectorAll('tr:not(.group) th')"
    for column, expected in ((2, ["L2C", "RANDOM_SKIP", "FORA", "DDIM", "FORA_SPREAD"]), (1, ["DDIM", "FORA", "L2C"])):
        click(browser, f"table.compared thead th:nth-child({column}) button")
        shown = browser.execute_script(f"return [...{names}].map(one => one.firstChild.textContent.trim())")
        assert shown[: len(expected)] == expected
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def test_printed_numbers_stand_beside_measured_ones(html, tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    judged = {"measured": "2.271828", "low": "2.2412", "high": "2.3024", "difference": "0.0118", "verdict": "reproduced"}
    common = dict.fromkeys(verdicts.COLUMNS, "") | {"metric": "fid", "published": "2.26", "source": "L2C, Table 1"}
    lines = [common | {"row": "DDIM 50"} | judged, common | {"row": "L2C", "verdict": "not measured", "why": "a <note>"}]
    data = page_data.collect(cfg, frame, tmp_path)
    text = page.render(cfg, frame, tmp_path / "config.yaml", [], tmp_path, data, None, lines)
    first, second = re.findall(r"<tr>.*?</tr>", text.partition('class="printed"')[2].partition("<tbody>")[2], re.S)[:2]
    assert "2.272 <span" in first and "[2.241, 2.302]" in first and "0.0118" in first and "reproduced" in first
    assert "not measured" in second and "a &lt;note&gt;" in second and 'data-value="nan"' in second
    assert "Beside the printed numbers" not in html[1]


def test_the_page_shows_sfid_only_where_an_extractor_gives_it(tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    assert "sfid" not in page_data.collect(cfg, frame, tmp_path)["columns"]
    frame = frame.assign(sfid=frame.fd + 1, sfid_low=frame.fd_low, sfid_high=frame.fd_high)
    data = page_data.collect(cfg, frame, tmp_path)
    assert data["axes"]["y"] == ["fd", "sfid", "latent_mse"] and list(data["columns"])[1] == "sfid"
    values = next(one for one in data["settings"] if one["id"] == "dit-20/l2c/0.5")["values"]
    assert list(values) == list(data["columns"]) and values["sfid"]["value"] == pytest.approx(values["fd"]["value"] + 1)
    assert "| sFD ↓" in tables.markdown(tables.build(frame, "dit-20")) and "sfid_half" in tables.numbers(frame, "dit-20")
