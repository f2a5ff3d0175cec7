"""How the page looks: in the dark, printed, in pictures for the docs; and what its panel tells of a failure, and of images."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cachebench.files import atomic
from report.pages import visit, wait, write_page, write_results


def contrast(a, b):
    """Of two colours, #rrggbb, as WCAG 2 has it."""
    linear = [
        [(c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in np.array([*bytes.fromhex(one[1:])]) / 255]
        for one in (a, b)
    ]
    low, high = sorted(float(np.dot([0.2126, 0.7152, 0.0722], one)) for one in linear)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_point_is_seen_on_its_background(opened, scheme):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    opened.refresh()
    wait(opened, "'whole' in document.documentElement.dataset")
    colours = "[...new Set(document.getElementById('chart')._fullData.map(one => one.marker.color))]"
    paper, *drawn = opened.execute_script(f"return [colour('paper'), ...{colours}]")
    assert len(drawn) >= 4 and min(contrast("#ffffff" if paper == "#fff" else paper, one) for one in drawn) > 2


def test_printed_it_shows_every_row_across_the_page_and_no_switch(opened):
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    board = "const box = document.getElementById('board').parentElement; return [box.scrollHeight - box.clientHeight, "
    board += "box.scrollWidth - box.clientWidth, document.querySelector('.controls').checkVisibility()]"
    opened.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 1031, "height": 700, "deviceScaleFactor": 1, "mobile": False}
    )
    hidden, beside, switches = opened.execute_script(board)  # 1031 pixels: A4 across, less the margins
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
    assert hidden <= 1 and beside <= 1 and not switches


def test_a_failed_row_links_the_line_of_its_plugin_and_its_log(tmp_path):
    cfg, frame = write_results(tmp_path / "results/synthetic", ["dit-20"])
    chosen = (frame.method == "l2c") & (frame.budget == 0.5)
    frame.loc[chosen, ["status", "reason"]] = "failed", "ValueError: no (methods/l2c.py, line 7)"
    for name, text in {"match": "fine", "sample-0": "so far\nTraceback (most recent call last):\nValueError: no"}.items():
        atomic.write_text(tmp_path / f"logs/synthetic/dit-20/l2c/{name}.log", text)
    _, data = write_page(tmp_path / "results/synthetic", cfg, frame)
    told = {one["id"]: one["log"] for one in data["settings"] if "log" in one}
    links = [["methods/l2c.py, line 7", "../../methods/l2c.py"], ["logs/synthetic/dit-20/l2c/sample-0.log"] * 2]
    links[1][1] = "../../" + links[1][0]
    assert list(told) == ["dit-20/l2c/0.5"] and told["dit-20/l2c/0.5"]["links"] == links
    assert told["dit-20/l2c/0.5"]["tail"].endswith("ValueError: no")


def test_on_a_phone_the_answer_is_stacked_and_stays_a_table(opened):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    wide = "[...document.querySelectorAll('#answer, #answer *')].filter(one => one.checkVisibility() && one.scrollWidth > "
    wide += "one.clientWidth && getComputedStyle(one).overflowX === 'auto').length"
    assert opened.execute_script(f"return [innerWidth, {wide}]") == [390, 0]
    shown = "return [...document.querySelectorAll('.answer:not([hidden]) .matrix tr:nth-child(2) td')].map(one => "
    shown += "[one.getBoundingClientRect().x, getComputedStyle(one, '::before').content.split(' of')[0]])"
    places, headings = zip(*opened.execute_script(shown), strict=True)
    assert len(set(places)) == 1 and headings[0] == '"90 %' and len(set(headings)) == len(headings) == 7
    opened.execute_script("document.querySelector('.answer:not([hidden]) td').removeAttribute('data-column')")  # as if empty
    roles = [node["role"]["value"] for node in opened.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]]
    parts = [role for role in roles if role in ("table", "columnheader", "rowheader", "cell")]
    assert parts[:33] == ["table", *["columnheader"] * 8, *["rowheader", *["cell"] * 7] * 3]


def test_dark_and_phone(opened):
    light = opened.execute_script("return document.querySelector('#chart .xtitle').style.fill")
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "dark"}]})
    wait(opened, f"document.querySelector('#chart .xtitle').style.fill !== '{light}'")
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    opened.refresh()
    wait(opened, "document.documentElement.dataset.ready")
    assert opened.execute_script("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    assert opened.execute_script("return document.querySelector('#chart .main-svg').clientWidth") < 390


FORMS = {"wide": (1280, 800, "light"), "phone": (390, 844, "light"), "dark": (1280, 800, "dark")}


@pytest.mark.skipif(
    "CACHEBENCH_PICTURES" not in os.environ, reason="CACHEBENCH_PICTURES names a folder for pictures of the page"
)
@pytest.mark.parametrize("form", FORMS)
def test_pictures_of_the_page(browser, synthetic, form):
    """First screen, chart, league table and a panel, of the page that CACHEBENCH_PAGE names, as WebP files."""
    page, folder = Path(os.environ.get("CACHEBENCH_PAGE", synthetic[0])).resolve(), Path(os.environ["CACHEBENCH_PICTURES"])
    width, height, scheme = FORMS[form]
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": form == "phone"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    visit(browser, page)
    folder.mkdir(parents=True, exist_ok=True)
    look = "document.querySelector(arguments[0]).scrollIntoView({behavior: 'instant'})"
    opening = "location.hash = document.querySelector('.answer:not([hidden]) td a').getAttribute('href')"
    shown = {"first": (look, "h1"), "chart": (look, "#explore"), "league": (look, "#league"), "panel": (opening, "")}
    for name, (script, place) in shown.items():
        browser.execute_script(script, place)
        wait(browser, "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")
        picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("RGB")
        assert picture.size == (width, height)
        file = folder / f"page-{form}-{name}.webp"
        for quality in range(60, 0, -10):  # as good as it can be, small enough to be committed
            picture.save(file, quality=quality, method=6)
            if file.stat().st_size <= 30_000:
                break


def test_a_setting_whose_images_decide_shows_the_spread_and_three_of_them(tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20"])
    each = torch.full((10, 2, 8, 2), 100, dtype=torch.uint8)
    for image in range(10):  # image i skips i of the 16 branches of evaluation 1
        each[image, 1].view(-1)[:image] = 0
    path = tmp_path / "dit-20/l2c/0.5/shard-0.safetensors"
    atomic.write_tensors(path, atomic.read_tensors(path)[0] | {"computed_each": each})
    _, data = write_page(tmp_path, cfg, frame)
    settings = {one["id"]: one for one in data["settings"]}
    found = settings["dit-20/l2c/0.5"]["decided"]
    assert found["mean"] == [0.0, round(100 * 4.5 / 16, 1)] and found["low"][1] < found["mean"][1] < found["high"][1]
    assert [found["samples"][word][0] for word in ("fewest", "median", "most")] == [9, 4, 0]
    assert found["samples"]["fewest"][1] == each[9].reshape(2, -1).T.tolist()
    assert [one for one in settings.values() if "decided" in one] == [settings["dit-20/l2c/0.5"]]
