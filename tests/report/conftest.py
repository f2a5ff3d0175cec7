"""Fixtures of the report's tests: results, figures of them, and a page in a real browser (headless Chromium)."""

import shutil

import pytest

from cachebench.report import figures, style
from cachebench.report.files_of_run import Files
from report.pages import OF_RUN, RUNS, visit, write_page, write_results
from report.test_tables import example
from report.tiny import draw

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@pytest.fixture(scope="module")
def frame():
    return example()


@pytest.fixture(scope="module")
def drawn(frame, tmp_path_factory):
    """{name: (figure, its png, svg and pdf)} of the two figures of the results table, saved below results/figures/r_1."""
    here, out = tmp_path_factory.mktemp("results") / "figures/r_1", {}
    for name in ("pareto", "fidelity"):
        out[name] = (draw(name, frame), *(here / f"{name}.{ending}" for ending in ("png", "svg", "pdf")))
        style.save(out[name][0], out[name][1:])
    return out


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
