"""The interactive page in a real browser (headless Chromium), on a synthetic results folder of 100 settings."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.report import figures, style, tables
from cachebench.report.files_of_run import Files
from cachebench.report.page import collect, copied, panel, render
from cachebench.setup import check, config, matrix
from helpers import unpacked
from report.test_tables import METRICS, missing, row

OF_RUN = [figure.name for figure in figures.available() if figure.per == "run"]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
RUNS = {"dit-20": ("dit", "ddim", 20), "dit-50": ("dit", "ddim", 50), "uvit-10": ("uvit", "dpm_solver2", 10)}
BUDGETS = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
METHODS = {"fewer_steps": "control", "random_skip": "control", "fora": "cache", "l2c": "cache", "fora_spread": "cache"}
FIT = {"lambda": [0.1], "iterations": [5], "lr": [1.0], "batch_size": [2]}
ARCH = {"input_size": 28, "patch_size": 4, "channels": 1, "width": 64, "depth": 8, "heads": 4, "num_classes": 10}


def configuration(runs):
    """A filled config of these of the RUNS."""
    given = {run: RUNS[run] for run in runs}
    backbones = {f"{kind}-model": {"arch": ARCH | {"kind": kind}, "weights": "random:0"} for kind, _, _ in given.values()}
    return config.fill(
        {
            "name": "synthetic",
            "backbones": backbones,
            "runs": {
                run: {"backbone": f"{kind}-model", "sampler": sampler, "num_steps": steps, "cfg_scale": 1.5}
                for run, (kind, sampler, steps) in given.items()
            },
            "budgets": BUDGETS,
            "methods": list(METHODS),
            "params": {"l2c": FIT},
            "samples": {"count": 500, "shard_size": 250, "batch_size": 50, "paired": 100},
            "extractor": {"name": "tiny_cnn", "weights": "none"},
            "reference": "some-test-set",
            "calibration": "none",
        }
    )


def parameters(cls, cfg, run, budget):
    """Parameters of a setting near `budget`: the knob where it has one that is a share, else the middle of its values."""
    swept = cls.sweep(matrix.spec(cfg, run), FIT if cls.id() == "l2c" else {})
    chosen = {name: values[0] for name, values in swept.items()}
    if cls.knob:
        values = list(swept[cls.knob])
        chosen[cls.knob] = values[min(len(values) - 1, int((1 - budget) * len(values)))]
    return chosen


def write_setting(folder, name, entries, pictures, noise):
    atomic.write_json(folder / name / "settings.json", entries)
    for entry in entries:
        if not entry.get("status"):
            images = pictures + noise * np.random.default_rng(1).normal(0, 60 * (1 - entry["budget"]), pictures.shape)
            tensors = {"images": torch.from_numpy(images.clip(0, 255).astype(np.uint8)), "macs": torch.ones(len(images))}
            tensors["computed"] = torch.full((1, 2, 8, 2), 0.25 * len(images))
            atomic.write_tensors(folder / name / str(entry["budget"]) / "shard-0.safetensors", tensors)


def time_of(median):
    return {"latency_ms_q25": 0.98 * median, "latency_ms_median": median, "latency_ms_q75": 1.03 * median}


def numbers(name, index, budget):
    """The values of a row that a plot of quality against cost looks plausible with."""
    worse = (1 - budget) * (1 + index) + 0.02 * index
    halves = {
        "fd": (5.9 + 2 * worse**2, 0.4),
        "latent_mse": (1e-4 + 2e-3 * worse**2, 2e-5),
        "fd_minus_full": (2 * worse**2, 0.1),
    }
    extra = {"images_to_repay_fit": 0, "peak_memory_mb": 400 + 30 * index + 10 * budget, "cache_bytes_per_image": 1e5 * index}
    if name == "l2c":  # as if it decided while running
        extra |= {"planned": budget, "achieved_sd": 0.0125, "syncs": 17.0}
    return halves | extra | {"name": name.replace("_", " ").capitalize()} | time_of(800 * (budget + 0.02 * index))


def write_results(folder, runs, **changes):
    """(cfg, frame) of a results folder with settings, images and fits; `changes` to columns of the frame."""
    cfg, rows = configuration(runs), []
    with np.load(atomic.ROOT / "resources/calibration/fashion-mnist-4000.npz") as archive:
        pictures = archive["images"][:10].reshape(10, 1, 28, 28).astype(float)
    for run in cfg["runs"]:
        about = {"run": run, "num_steps": RUNS[run][2], "sampler": RUNS[run][1], "backbone": cfg["runs"][run]["backbone"]}
        full = (
            row("full", 1.0, "control", **numbers("full", 0, 1.0) | {"latent_mse": (0.0, 0.0)}) | about | {"setting": "default"}
        )
        rows.append(full)
        write_setting(folder / run, "full", [{"budget": 1.0, "params": {}, "achieved": 1.0}], pictures, 0)
        for index, (name, kind) in enumerate(METHODS.items()):
            cls, entries = loader.plugin(name), []
            for budget in BUDGETS:
                if name == "fora" and budget > 0.6:
                    entry = {"budget": budget, "status": "unreachable", "reason": f"The nearest cost is 0.5 <b>({run})</b>."}
                    rows.append(
                        missing(name, budget, entry["status"], entry["reason"]) | about | {"name": "Fora", "kind": kind}
                    )
                else:
                    entry = {"budget": budget, "params": parameters(cls, cfg, run, budget), "achieved": budget}
                    label = method.label(entry["params"])
                    first = {"fewer_steps": "fd latent_mse", "l2c": "fd" if budget == 0.3 else ""}.get(name, "")
                    own = about | {"setting": label, "first_in": first} | ({"nfe": round(20 * budget)} if index == 0 else {})
                    rows.append(row(name, budget, kind, **numbers(name, index, budget)) | own)
                entries.append(entry)
            write_setting(folder / run, name, entries, pictures, 1)
        (fit,) = matrix.fits(cfg, loader.plugin("l2c"), run)
        here, shape = folder / run / f"l2c/fit/{loader.plugin('l2c').fit_label(fit)}", matrix.spec(cfg, run).mask_shape
        logits = torch.linspace(-5, 5, shape[0] * shape[1] * shape[2]).reshape(shape[0], -1)
        atomic.write_tensors(here.with_name(here.name + ".safetensors"), {"routers": logits})
        atomic.write_csv(
            f"{here}.csv", [{"step": i, "evaluation": 1, "loss": 1.01**-i, "scores": i % 7} for i in range(1, 1001)]
        )
        atomic.write_json(f"{here}.json", {"reason": None, "seconds": 60})
    frame = tables.tidy(pd.DataFrame(rows)).assign(**changes)
    (folder / "config.yaml").write_text(json.dumps(cfg))
    return cfg, frame


def write_page(folder, cfg, frame, paths=()):
    frame = tables.completed(cfg, frame)
    data = collect.collect(cfg, frame, folder)
    html = render.render(cfg, frame, folder / "config.yaml", paths, folder, data)
    (folder / "index.html").write_text(html)
    return folder / "index.html", data


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """(page file, its data) of 3 runs x (full + 5 methods x 7 budgets)."""
    folder = tmp_path_factory.mktemp("synthetic")
    cfg, frame = write_results(folder, list(RUNS))
    files, paths = Files(cfg, "dit-20", folder, frame), []
    for name in ("pareto", "schedules"):
        style.save(figures.load(name).draw(files), [folder / f"figures/dit-20/{name}.{ending}" for ending in ("png", "svg")])
    for run in RUNS:  # a full page has a figure of every kind for every run; what they show does not matter here
        for name in OF_RUN:
            for ending in ("png", "svg"):
                kind = "schedules" if name in ("schedules", "samples", "fits") else "pareto"
                (file := folder / f"figures/{run}/{name}.{ending}").parent.mkdir(exist_ok=True)
                file.write_bytes((folder / f"figures/dit-20/{kind}.{ending}").read_bytes())
                paths.append(file)
    return write_page(folder, cfg, frame, paths)


@pytest.fixture(scope="module")
def browser():
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for word in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "window-size=1300,1000"):
        options.add_argument(f"--{word}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser, synthetic):
    """The browser with the synthetic page freshly opened; at the end nothing may have been written to its console."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": "light"}]})
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    visit(browser, synthetic[0])
    yield browser
    assert [entry["message"] for entry in browser.get_log("browser")] == []


def visit(browser, path):
    """Opens the file anew. On a busy machine `get` may return while the page is read and its buttons do nothing yet."""
    browser.get("about:blank")
    browser.get(path.as_uri())
    wait(browser, f"location.pathname === {json.dumps(str(path))} && 'whole' in document.documentElement.dataset")


def choose(browser, name, value):
    browser.execute_script(
        "const one = document.getElementById(arguments[0]); one.value = arguments[1];"
        "one.dispatchEvent(new Event('change', {bubbles: true}))",
        name,
        value,
    )


def shown(browser):
    """Ids of the rows of the leaderboard that can be seen, in order."""
    found = "[...document.querySelectorAll('#board tbody tr')].filter(row => row.checkVisibility()).map(row => row.dataset.id)"
    return browser.execute_script(f"return {found}")


def click(browser, css):
    browser.execute_script("document.querySelector(arguments[0]).click()", css)


def wait(browser, script, first=lambda: None):
    """The expression's value once it is true; `first` is done before every look, for a page that is not yet ready for it."""
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 60).until(lambda driver: (first(), driver.execute_script(f"return {script}"))[1])


def axis_title(browser, letter):
    return browser.execute_script(f"return document.querySelector('#chart .{letter}title').textContent")


def point(browser, name, budget):
    """(x, y) on the screen of a method's point in the chart."""
    browser.execute_script("document.getElementById('chart').scrollIntoView({block: 'center'})")
    return browser.execute_script(
        """
        const chart = document.getElementById("chart"), id = arguments[0];
        const trace = chart._fullData.findIndex(one => (one.ids ?? []).includes(id));
        const index = chart._fullData[trace].ids.indexOf(id), box = chart.getBoundingClientRect();
        const { xaxis, yaxis } = chart._fullLayout, { x, y } = chart._fullData[trace];
        return [box.x + xaxis._offset + xaxis.d2p(x[index]), box.y + yaxis._offset + yaxis.d2p(y[index])].map(Math.round);
        """,
        f"dit-20/{name}/{budget}",
    )


def mouse(browser, place, press=False):
    for kind in ("mouseMoved", *(("mousePressed", "mouseReleased") if press else ())):
        event = {"type": kind, "x": place[0], "y": place[1], "button": "left" if press else "none", "clickCount": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)


def test_a_page_of_100_settings_is_small_and_opens_at_once(opened, synthetic):
    assert len(synthetic[1]["settings"]) >= 100
    assert opened.execute_script("return document.querySelectorAll('figure img').length") == 3 * len(OF_RUN)
    assert synthetic[0].stat().st_size < 15e6
    times = []
    for _ in range(3):
        visit(opened, synthetic[0])
        times.append(int(wait(opened, "document.documentElement.dataset.ready")))
    assert opened.execute_script("return document.querySelectorAll('#chart .point').length") == 33
    assert min(times) < 2000  # ms; the least, because the machine may be busy


def test_leaderboard_sorts(opened, synthetic):
    click(opened, "#filter-empty")
    values = {one["id"]: one["values"].get("fd", {}).get("value") for one in synthetic[1]["settings"]}
    for end in (min, max):
        click(opened, "#board thead th:nth-child(4) button")
        order = [values[one] for one in shown(opened)]
        measured = [value for value in order if value is not None]
        assert measured == sorted(measured, reverse=end is max) and order[: len(measured)] == measured
        assert len(order) == len(values) and order[-1] is None
    click(opened, "#board thead th:nth-child(1) button")
    assert shown(opened)[0].split("/")[1] == "fewer_steps"


def test_leaderboard_filters(opened):
    assert not any("fora/0.9" in one for one in shown(opened))
    click(opened, "#filter-empty")
    everything = shown(opened)
    choose(opened, "filter-where", "backbone dit-model")
    assert {one.split("/")[0] for one in shown(opened)} == {"dit-20", "dit-50"}
    choose(opened, "filter-where", "run uvit-10")
    assert {one.split("/")[0] for one in shown(opened)} == {"uvit-10"}
    assert opened.execute_script("return document.getElementById('chart-run').value") == "uvit-10"
    choose(opened, "filter-budget", "0.7")
    assert shown(opened) == ["uvit-10/full/1"] + [f"uvit-10/{name}/0.7" for name in METHODS]
    choose(opened, "filter-kind", "cache")
    assert shown(opened) == ["uvit-10/full/1", "uvit-10/fora/0.7", "uvit-10/l2c/0.7", "uvit-10/fora_spread/0.7"]
    click(opened, "#filter-empty")
    assert "uvit-10/fora/0.7" not in shown(opened) and len(shown(opened)) == 3
    assert opened.execute_script("return document.getElementById('shown').value") == f"3 of {len(everything)} rows"
    choose(opened, "filter-kind", "control")
    assert shown(opened) == ["uvit-10/full/1", "uvit-10/fewer_steps/0.7", "uvit-10/random_skip/0.7"]


def test_a_row_without_numbers_says_why(opened):
    click(opened, "#filter-empty")
    row = "document.querySelector('#board tr[data-id=\"dit-20/fora/0.9\"]')"
    text = wait(opened, f"{row}.innerText", lambda: opened.execute_script(f"{row}.scrollIntoView()"))  # not laid out before
    assert "unreachable: The nearest cost is 0.5 <b>(dit-20)</b>." in text


def test_chart_switches_its_axes(opened):
    assert axis_title(opened, "x") == "MACs, % of full" and axis_title(opened, "y") == "FD, tiny_cnn, n = 500"
    assert opened.execute_script("return document.querySelectorAll('#chart .errorbar').length") > 20  # of those in colour
    for key, title in {"latency_ms": "Latency, ms/image", "peak_memory_mb": "Peak memory, MB, whole process"}.items():
        choose(opened, "chart-x", key)
        assert axis_title(opened, "x") == title
        assert opened.execute_script("return document.querySelectorAll('#chart .point').length") == 33
    choose(opened, "chart-y", "latent_mse")
    assert axis_title(opened, "y") == "Latent MSE, to full"
    assert (
        opened.execute_script("return document.querySelectorAll('#chart .point').length") == 32
    )  # full has no distance to itself


def test_hover_and_click_on_a_point(opened, synthetic):
    hover = "document.querySelector('#chart .hoverlayer text')?.textContent"
    text = wait(opened, hover, lambda: mouse(opened, point(opened, "l2c", 0.5)))
    cell = next(one for one in synthetic[1]["settings"] if one["id"] == "dit-20/l2c/0.5")["values"]
    assert "L2c, budget 0.5" in text and "threshold=" in text and "MACs, % of full: 49.7" in text
    assert f"{cell['fd']['text']} ± 0.400" in text
    wait(opened, "document.getElementById('panel').open", lambda: mouse(opened, point(opened, "l2c", 0.5), press=True))
    assert opened.execute_script("return document.getElementById('panel-title').textContent") == "L2c"


def test_panel_shows_schedule_samples_fit_and_command(opened, synthetic):
    click(opened, "#board tr[data-id='dit-20/l2c/0.5'] a")
    wait(opened, "document.querySelector('#panel .schedule .hm')")
    setting = next(one for one in synthetic[1]["settings"] if one["id"] == "dit-20/l2c/0.5")
    text = opened.execute_script("return document.getElementById('panel').innerText")
    cost = "It computed 49.7 % of the full run's MACs, with a standard deviation of 1.25 % over the images; 50.0 % were planned"
    for word in ("threshold", "lambda=0.1", "medians of 4 rows", setting["command"], "Difference × 4", cost, "17.0 times"):
        assert word in text
    strips = "return [...document.querySelectorAll('#panel .strips img')].map(one => [one.naturalWidth, one.alt.split(':')[0]])"
    assert opened.execute_script(strips) == [[298, one] for one in ("Full run", "Fewer steps", "L2c", "Difference × 4")]
    assert opened.execute_script("return document.querySelectorAll('#panel .curve .js-line').length") == 2
    click(opened, "#panel a[href='#dit-20/l2c/0.9']")
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.9'")
    opened.back()
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.5'")
    click(opened, "#panel header button")
    assert not opened.execute_script("return document.getElementById('panel').open")
    click(opened, "#board tr[data-id='dit-20/fewer_steps/0.5'] a")
    wait(opened, "document.getElementById('panel').open")
    assert [name for _, name in opened.execute_script(strips)] == ["Full run", "Fewer steps", "Difference × 4"]
    click(opened, "#panel header button")
    click(opened, "#filter-empty")
    click(opened, "#board tr[data-id='dit-20/fora/0.9'] a")
    wait(opened, "document.getElementById('panel').open")
    assert "unreachable: The nearest" in opened.execute_script("return document.getElementById('panel').innerText")


def test_the_panel_keeps_the_focus_from_budget_to_budget(opened):
    click(opened, "#board tr[data-id='dit-20/l2c/0.5'] a")
    wait(opened, "document.getElementById('panel').open")
    opened.execute_script("document.querySelector(\"#panel a[href='#dit-20/l2c/0.9']\").focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    for kind in ("keyDown", "keyUp"):
        opened.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind} | enter)
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.9'")
    focused = "return document.activeElement.textContent"
    assert opened.execute_script(focused) == "budget 0.9"
    opened.execute_script("document.querySelector('#panel header button').focus()")
    opened.back()
    wait(opened, "document.querySelector('#panel [aria-current]')?.textContent === 'budget 0.5'")
    assert opened.execute_script(focused) == "Close"


def test_the_address_keeps_how_the_leaderboard_is_sorted_and_whether_it_has_empty_rows(opened, synthetic):
    click(opened, "#filter-empty")
    for sign in ("", "-"):
        click(opened, "#board thead th:nth-child(4) button")
        order, address = shown(opened), opened.execute_script("return location.hash")
        assert address == f"#?filter-empty=true&sort={sign}4"
    opened.get("about:blank")
    opened.get(f"{synthetic[0].as_uri()}{address}")
    wait(opened, "'whole' in document.documentElement.dataset")
    assert shown(opened) == order and len(order) == len(synthetic[1]["settings"])
    assert opened.execute_script("return location.hash") == address
    assert opened.execute_script("return document.querySelectorAll('#board [aria-sort=descending]').length") == 1


def test_in_colour_are_the_controls_and_of_each_family_what_comes_lowest_at_any_cost(opened, synthetic):
    points = [one for one in synthetic[1]["settings"] if one["run"] == "dit-20" and one["values"].get("fd", {}).get("value")]
    best = {}
    for one in sorted(points, key=lambda one: one["values"]["fd"]["value"]):
        best.setdefault(one["method"] if one["kind"] == "control" else one["family"], one["name"])
    legend = opened.execute_script("return [...document.querySelectorAll('#chart .legendtext')].map(one => one.textContent)")
    assert sorted(legend) == sorted(best.values())
    text = opened.execute_script("return document.getElementById('explore').innerText")
    assert "of each family the method that comes lowest, at whatever cost, and the controls" in text


def test_the_address_keeps_what_was_switched(opened, synthetic):
    choose(opened, "chart-x", "latency_ms")
    choose(opened, "filter-budget", "0.7")
    click(opened, "input[name=by][value=closeness]")
    address = opened.execute_script("return location.hash")
    assert address == "#?chart-x=latency_ms&filter-budget=0.7&by=closeness"
    opened.get("about:blank")
    opened.get(f"{synthetic[0].as_uri()}#dit-50/l2c/0.5{address[1:]}")
    wait(opened, "document.documentElement.dataset.ready && document.getElementById('panel').open")
    assert axis_title(opened, "x") == "Latency, ms/image" and all(one.endswith(("/0.7", "/1")) for one in shown(opened))
    assert (
        opened.execute_script("return [...document.querySelectorAll('.answer')].find(one => !one.hidden).dataset.by")
        == "closeness"
    )
    click(opened, "#panel header button")
    wait(opened, f"location.hash === {json.dumps(address)}")


def test_typing_finds_a_method(opened):
    opened.execute_script(
        "const box = document.getElementById('chart-find'); box.value = 'SPREAD'; box.dispatchEvent(new Event('input'))"
    )
    wait(opened, "document.querySelectorAll('#chart .legendtext').length === 1")
    assert opened.execute_script("return document.querySelector('#chart .legendtext').textContent") == "Fora spread"


OUTCOMES = {"ok": {}, "unreachable": {"status": "unreachable"}}


def test_the_nearest_settings_stand_beside_a_row_with_their_costs(tmp_path):
    """Of a row that was reached those on either side; of an unreachable one those around its budget; of a method that decides
    while running those that the matcher tried."""
    files, knob = Files(configuration(["dit-20"]), "dit-20", tmp_path), ((0.1, 0.8), (0.2, 0.52), (0.4, 0.3))
    params = parameters(loader.plugin("easycache"), files.cfg, "dit-20", 0.5) | {"threshold": 0.2}
    tried = [{"value": value, "achieved": achieved} for value, achieved in knob]
    entries = [{"budget": 0.5, "params": params, "achieved": 0.52, "knob": tried}]
    atomic.write_json(tmp_path / "dit-20/easycache/settings.json", entries)
    decides = pd.Series({"method": "easycache", "budget": 0.5})
    assert panel.nearest(files, decides, entries[0]) == [["threshold=0.4", "30.0"], ["threshold=0.1", "80.0"]]
    cost, fora = dict((p["interval"], share) for p, share in files.priced("fora")), pd.Series({"method": "fora", "budget": 0.9})
    entry = {"budget": 0.9, "params": {"interval": 2, "anchor": "descending"}, "achieved": cost[2]}
    told = {status: [text for text, _ in panel.nearest(files, fora, entry | more)] for status, more in OUTCOMES.items()}
    assert told == {"ok": ["interval=3", "interval=1"], "unreachable": ["interval=2", "interval=1"]}


def test_an_unreachable_row_gives_lines_that_the_config_takes(synthetic):
    cfg = config.load(synthetic[0].parent / "config.yaml")
    entry = {"achieved": 0.50123, "params": {"interval": 3, "anchor": "descending"}}
    lines = yaml.safe_load(copied.lines_for(pd.Series({"run": "dit-20", "method": "fora"}), entry))
    (setting,) = lines["runs"]["dit-20"]["settings"]
    assert setting == {"budget": 0.501, "fora": entry["params"]}
    cfg["runs"]["dit-20"]["settings"] = [setting]
    assert matrix.budgets(config.fill(cfg), "dit-20", "fora")[-1] == 0.501


ARXIV = "@misc{{arxiv{0}, eprint = {{{0}}}, archivePrefix = {{arXiv}}, url = {{https://arxiv.org/abs/{0}}}}}"
SOURCES = {
    "arXiv:2407.01425": [ARXIV.format("2407.01425")],
    "arXiv:2511.00090, arXiv:2602.22654": [ARXIV.format("2511.00090"), ARXIV.format("2602.22654")],
    "ComfyUI; arXiv:2507.02860": ["@misc{comfyui, title = {ComfyUI}}", ARXIV.format("2507.02860")],
    "diffusers, cache-dit (DBCache, F8B0)": [
        "@misc{diffusers, title = {diffusers}}",
        "@misc{cache-dit-dbcache-f8b0, title = {cache-dit (DBCache, F8B0)}}",
    ],
    "A Name: Some words (2025) https://example.org/a": [
        "@misc{a-name-some-words-2025, title = {A Name: Some words (2025)}, year = {2025}, url = {https://example.org/a}}"
    ],
    "": [],
}


@pytest.mark.parametrize("reference", SOURCES)
def test_every_source_has_an_entry_of_its_own(reference):
    assert copied.cite(reference).splitlines() == SOURCES[reference]


def test_every_method_with_a_reference_has_an_entry():
    for cls in (loader.plugin(loader.ids(name)[0]) for name in loader.available()):
        assert bool(re.match(r"@misc\{[\w.-]+, ", copied.cite(cls.reference))) == bool(cls.reference), cls.id()


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


def test_only_the_pages_own_scripts_may_run(opened):
    opened.execute_script(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.bad = 1'}))"
    )
    assert not opened.execute_script("return window.bad")
    (entry,) = opened.get_log("browser")
    assert "Content Security Policy" in entry["message"]


def test_ties_are_marked_and_the_best_beyond_doubt_is_bold(synthetic):
    marks = {one["id"]: one["ties"] for one in synthetic[1]["settings"]}
    tied = {"fd": "tie", "fd_minus_full": "tie"}
    assert marks["dit-20/fewer_steps/0.3"] == tied | {"latent_mse": "best"} and marks["dit-20/l2c/0.3"] == tied
    assert marks["dit-20/fewer_steps/0.4"] == {"fd": "best", "fd_minus_full": "best", "latent_mse": "best"}
    assert marks["dit-20/full/1"] == marks["dit-20/fora/0.9"] == {}


def test_shares_and_images_are_those_of_the_files(synthetic):
    folder, data = synthetic[0].parent, synthetic[1]
    files = Files(config.load(folder / "config.yaml"), "dit-20", folder)
    setting = next(one for one in data["settings"] if one["id"] == "dit-20/l2c/0.5")
    assert setting["computed"] == [[25, 25]] * 16
    assert not any("counted" in one for one in data["settings"] if one["method"] != "l2c")  # known beforehand
    own, full = files.images("l2c", 0.5).astype(int), files.images("full", 1.0).astype(int)
    assert setting["images"]["difference"] == panel.strip((255 - np.minimum(4 * abs(own - full), 255)).astype(np.uint8))


def test_large_images_are_shrunk():
    images = np.random.default_rng(0).integers(0, 256, (10, 256, 256, 3), dtype=np.uint8)
    assert len(panel.strip(images)) < 150_000


@pytest.mark.parametrize("case", ["no files", "no latency", "nothing measured", "one run of two", "nan", "torn files"])
def test_page_is_made_of_whatever_is_there(case, tmp_path):
    cfg, frame = write_results(tmp_path, ["dit-20", "uvit-10"] if case == "one run of two" else ["dit-20"])
    metrics = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    if case == "no files":
        shutil.rmtree(tmp_path / "dit-20")
    elif case == "no latency":
        frame = frame.assign(**{c: np.nan for c in frame if c.startswith("latency_ms")})
    elif case == "nothing measured":
        frame = frame.assign(status="failed", reason="RuntimeError: out of luck")
    elif case == "one run of two":
        frame = frame[(frame.run == "dit-20") & (frame.method != "full")]
    elif case == "nan":
        frame = frame.assign(**dict.fromkeys(metrics, np.nan))
    else:
        for path in tmp_path.rglob("*.*"):
            if path.is_file() and path.name != "config.yaml":
                path.write_text("{")
    file, data = write_page(tmp_path, cfg, frame)
    assert len(data["settings"]) == 36 * len(cfg["runs"]) and [run["name"] for run in data["runs"]] == list(cfg["runs"])
    html = unpacked(file.read_text())
    assert html.count("missing: results.csv has no such row") >= (37 if case == "one run of two" else 0)
    assert all(f'data-id="{one["id"]}"' in html for one in data["settings"])
    if case in ("no files", "torn files"):
        assert not any("computed" in one or "images" in one for one in data["settings"])


@pytest.mark.parametrize("name", ["smoke", "start", "ablation"])
def test_the_config_that_the_command_names_is_one_that_can_be_given(name):
    """results/<name>/config.yaml, which is the filled one; with settings of some runs, and of none."""
    filled = check.check(yaml.safe_load((atomic.ROOT / f"config/{name}.yaml").read_text("utf-8")))
    assert check.check(yaml.safe_load(yaml.safe_dump(filled))) == filled


def test_the_command_names_the_files_of_the_setting(synthetic):
    """Of a row that ran its own samples, of one that could not run its settings, of one that is yet to come nothing."""
    commands, here = {one["id"]: one["command"] for one in synthetic[1]["settings"]}, "results/synthetic/dit-50"
    end = "--cores all --configfile results/synthetic/config.yaml"
    shards = f"{here}/fewer_steps/shard-0.json {here}/fewer_steps/shard-1.json"
    assert commands["dit-50/fewer_steps/0.5"] == (
        f"mv {here}/fewer_steps/0.5 {here}/fewer_steps/0.5-$(date +%s); "
        f"snakemake {here}/fewer_steps/scores.json --forcerun {shards} {end}"
    )
    assert commands["dit-50/fora/0.9"] == f"snakemake {here}/fora/scores.json --forcerun {here}/fora/settings.json {end}"
    files = Files(config.load(synthetic[0].parent / "config.yaml"), "dit-50", "nowhere")
    lost = copied.command(files, pd.Series({"run": "dit-50", "method": "fora", "budget": 0.5}), {"status": "missing"})
    assert lost == f"snakemake {here}/fora/scores.json {end}"
