"""Sentences that the page says only with certain numbers, of a page that has those numbers."""

import re

import pytest
import torch

from cachebench.files import atomic
from cachebench.plugin import loader
from cachebench.report import answers, tables
from cachebench.report.page import collect, render
from cachebench.setup import matrix
from helpers import unpacked
from report.pages import choose, visit, wait, write_results
from report.test_answers import configuration, frame_of, one

OPENED = "dit-20/l2c/0.5"
FORA = {"interval": 2, "anchor": "descending"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """(file, its text): three methods tie at 0.5, of which l2c decides while it runs and is in doubt, none is within the
    margin, dit-50 has no FD and no images, and someone has edited 23 lines of results.csv."""
    folder = tmp_path_factory.mktemp("sentences")
    cfg, frame = write_results(folder, ["dit-20", "dit-50"], within="no", fd_ranks="yes")
    cfg["quality"] = {"metric": "fd", "margin": 0.01}
    tied = (frame.budget == 0.5) & (frame.kind == "cache") & (frame.run == "dit-20")
    beside = {"fd_minus_control": -0.2, "fd_minus_control_low": -0.3, "fd_minus_control_high": -0.1}
    beside |= {"verdict": "tie", "first_in": "fd"}
    frame.loc[tied, list(beside)] = list(beside.values())
    frame.loc[tied & (frame.method == "l2c"), "reason"] = "kid: too few images"
    lost = frame.run == "dit-50"
    frame.loc[lost, [c for c in frame if re.match("fd(_minus_.*)?(_low|_high)?$", c)]] = float("nan")
    for shard in (folder / "dit-50").rglob("shard-*.safetensors"):
        shard.unlink()
    settings = folder / "dit-20/l2c/settings.json"
    entries = atomic.read_json(settings)
    fora = loader.plugin("fora")
    atomic.write_json(
        folder / "dit-20/fora/settings.json",
        [
            {"budget": 0.9, "status": "unreachable", "params": FORA, "achieved": 0.5, "reason": "The nearest cost is 0.500."},
            {"budget": 0.5, "params": FORA, "achieved": 0.5, "rows": fora(**FORA).rows(matrix.spec(cfg, "dit-20"))},
        ],
    )
    atomic.write_json(
        folder / "dit-20/fora/scores.json", {"0.5": {"errors": {"latent_mse": [0.01 * (7 - i) ** 2 for i in range(10)]}}}
    )
    failed = (frame.run == "dit-20") & (frame.method == "l2c") & (frame.budget == 0.9)
    frame.loc[failed, ["status", "reason"]] = "failed", "ValueError: no (methods/l2c.py, line 7)"
    curve = [{"value": value, "achieved": achieved} for value, achieved in ((0.1, 1.0), (0.25, 0.99), (0.5, 0.7), (2.5, 0.3))]
    atomic.write_json(settings, [entry | {"knob": curve} for entry in entries])
    each = torch.full((10, 2, 8, 2), 100, dtype=torch.uint8)
    for image in range(10):  # image i skips i of the 16 branches of evaluation 1
        each[image, 1].view(-1)[:image] = 0
    path = folder / OPENED / "shard-0.safetensors"
    atomic.write_tensors(path, atomic.read_tensors(path)[0] | {"computed_each": each})
    errors = {"stand_in": 0.02, "stand_in_low": 0.01, "stand_in_high": 0.03, "reuse": 0.05}
    traced = [
        {"method": "l2c", "budget": 0.5, "evaluation": e, "latent_mse": 1e-3} | (errors if e % 2 else {}) for e in range(6)
    ]
    atomic.write_csv(folder / "dit-20/trace.csv", traced, ["method", "budget", "evaluation", "latent_mse", *errors])
    frame = tables.completed(cfg, frame)
    data, flaws = collect.collect(cfg, frame, folder), [f"Line {i}: <wrong>." for i in range(23)]
    text = render.render(cfg, frame, folder / "config.yaml", [], folder, data, flaws=flaws)
    atomic.write_text(folder / "index.html", text)
    return folder / "index.html", unpacked(text)


def test_what_is_wrong_with_an_edited_file_is_listed_as_far_as_it_can_be_read(page):
    (shown,) = re.findall(r'<section class="lost" id="flaws">.*?</section>', page[1], re.S)
    assert "<p>results.csv is not as it was written. The rest is shown.</p>" in shown
    assert shown.partition("<details>")[0].count("&lt;wrong&gt;") == 3 and "<summary>20 more</summary>" in shown
    assert shown.count("&lt;wrong&gt;") == 20 and "<li>And 3 more.</li>" in shown


def test_the_matrix_says_who_ties_and_where_none_is_within_the_margin(page):
    parts = page[1].split('<div class="answer" data-by="')[1:]
    answer = {tuple(part.split('"')[0:3:2]): part for part in parts}
    assert "; 2 more tie with it</small>" in answer["fd", "trained"]
    assert "a tie of 3 compared" in answer["fd", "trained"]
    said = {
        "The interval's end is one-sided.": {"margin"},
        "It counts images (Wilcoxon), the interval is of their mean.": {"closeness"},
        "the word is the verdict of the paired test against fewer steps": {"fd", "closeness"},
        "on one axis for all cells (−0.30 to 0.30; the line is fewer steps, left of it is better)": {"fd"},
    }
    assert {words: {by for (by, _), part in answer.items() if words in part} for words in said} == said
    assert "none is within the margin" in answer["margin", "trained"] and "within the margin" not in answer["fd", "trained"]


def test_the_league_table_says_better_and_worse_without_its_colours(page):
    told = re.findall(r'<div class="league" data-by="(\w+)".*?<p class="about">(.*?)</p>', page[1], re.S)
    assert [by for by, _ in told] == ["fd", "closeness"]
    for by, words in told:
        assert "▲, green: better than fewer steps; ▼, orange: worse" in words and "Without a sign: a tie." in words
        assert ("Grey: FD does not rank there, or is in doubt." in words) == (by == "fd")
    assert 'class="better deep-' not in page[1]  # all tie
    assert 'class="sign"' not in page[1].partition("<script")[0]


def panel(browser, page, row):
    """The text of a row's panel."""
    visit(browser, page[0])
    browser.execute_script("location.hash = arguments[0]", row)
    wait(browser, "document.getElementById('panel').open")
    return browser.execute_script("return document.getElementById('panel').innerText")


def test_the_panel_of_a_row_that_decides_while_it_runs(page, browser):
    text = panel(browser, page, OPENED)
    assert "In doubt: kid: too few images" in text
    assert "Here threshold works from 0.25 to 2.5: before it saves nothing, and beyond it saves no more." in text
    assert "The hit rate of every evaluation: the share of branches that were skipped. The band holds the middle 80 %" in text
    assert "The image that computed the fewest branches, seed 9:" in text and "No images are kept." not in text
    assert "The nearest other settings: threshold=0.99 costs 50.6 % of the full run's MACs." in text
    assert "What stands in for skipped values" in text and "with its 95 % interval; dotted, where the last computed" in text
    lines = "[...document.querySelectorAll('#panel .curve')].find(one => one.data?.[1]?.name === 'plain reuse').data"
    assert browser.execute_script(f"return {lines}.map(one => [one.x, one.y])") == [
        [[1, 3, 5], [0.02] * 3],
        [[1, 3, 5], [0.05] * 3],
    ]
    assert "It sets the samples that are there aside, in a folder beside them" in text and "Nothing removes that folder" in text
    assert browser.get_log("browser") == []


def test_the_panel_says_where_the_cost_comes_from_which_seeds_and_what_gives_an_unreachable_row(page, browser):
    text = panel(browser, page, "dit-20/fora/0.5")
    assert re.search(r"Where the MACs go: the network's rest [\d.]+ %, attention and MLP [\d.]+ %\.", text)
    assert (
        "Of these, to the full run, nearest: seed 7 (latent MSE 0), middle: seed 4 (latent MSE 0.0900), farthest: seed 0"
        in text
    )
    assert "Lines of config" not in text and "What went wrong" not in text
    text = panel(browser, page, "dit-20/fora/0.9")
    assert "Lines of config that give the nearest setting a row" in text and "- budget: 0.5" in text
    assert "The nearest other settings: interval=2 costs" in text
    text = panel(browser, page, "dit-20/l2c/0.9")
    assert "failed: ValueError: no" in text and "What went wrong" in text
    assert "Parameters\n\nNone." in panel(browser, page, "dit-20/full/1")


def test_a_run_without_fd_and_images_says_so(page, browser):
    assert "No images are kept." in panel(browser, page, "dit-50/l2c/0.5")
    choose(browser, "chart-run", "dit-50")
    choose(browser, "chart-y", "fd")
    notes = "document.querySelector('#chart .annotation')?.textContent"
    assert wait(browser, notes) == "No setting of dit-50 has both numbers."
    choose(browser, "chart-y", "latent_mse")
    assert not browser.execute_script("return document.querySelector('#chart').textContent.includes('has both numbers')")


def test_of_a_solver_with_several_evaluations_a_step_evaluations_are_counted():
    frame = frame_of(one("taylor", 0.5, -0.5, "better", 0.7, num_steps=10))
    found = answers.sentence(configuration(), frame, "r_1")
    assert found.endswith("than that of fewer steps, and it is closer to the full run than 10 of its 20 evaluations.")
