"""Results folders and pages that tests of the report make, and how they drive a page in a browser."""

import json

import numpy as np
import pandas as pd
import torch

from cachebench.files import atomic
from cachebench.plugin import loader, method
from cachebench.report import figures, tables
from cachebench.report.page import collect, render
from cachebench.setup import config, matrix
from report.test_tables import missing, row

OF_RUN = [figure.name for figure in figures.available() if figure.per == "run"]
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
