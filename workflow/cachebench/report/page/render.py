"""One self-contained HTML page of a results folder: what ran, what came out, tables and figures. No torch here."""

import base64
import hashlib
import io
import json
import os
import zlib
from datetime import datetime
from pathlib import Path

import jinja2
from PIL import Image
from plotly.offline import get_plotlyjs

from cachebench.judge import answers as judged
from cachebench.judge import published
from cachebench.judge.equivalents import step_reduction
from cachebench.judge.validity import NO
from cachebench.plugin.method import EFFORTS
from cachebench.report import agreement, answers, figures, marks, tables, validity
from cachebench.report.files_of_run import Files
from cachebench.report.marks import NO_RANKS
from cachebench.report.page import compared, league
from cachebench.report.style import EMPTY
from cachebench.setup import matrix, sources

HERE = Path(__file__).parent  # the template, the script and the style
FD, LATENT = (tables.column(key) for key in ("fd", "latent_mse"))


def summary(frame, run):
    """Plain sentences from the verdicts of comparisons.csv: (those about all budgets, [(budget, sentences)])."""
    of_run, per_budget = frame[frame.run == run], []
    rows, steps = of_run[of_run.method != "full"], step_reduction(of_run)
    for budget, group in sorted(rows.groupby("under"), reverse=True):
        good = group[group.status == "ok"]
        sentences = [closest(good), lowest(good, steps), not_beyond_random(good)]
        missing = len(group) - len(good)
        sentences += [f"{missing} of {len(group)} methods have no number here; the table says why."] if missing else []
        per_budget.append((f"{budget:.3g}", [s for s in sentences if s]))
    judged, lost = rows[(rows.status == "ok") & (rows.verdict != "")], marks.unranked(rows)
    ranked = judged[judged.fd_ranks != NO]
    sentences = overall(judged if ranked.empty else ranked, tables.short(tables.called(of_run)))
    if lost and not ranked.empty:
        sentences.append(f"{lost}, so these cases are not counted.")
    sentences += agreement.held(of_run)
    return sentences, per_budget


def overall(rows, fd):
    """The sentences about all budgets, of rows with a verdict against fewer steps: the count first, then who. `fd` is what the
    Fréchet distance is called."""
    if rows.empty:
        return [f"By {fd} no method could be compared with fewer steps at the same budget."]
    counts = ", ".join(f"{words} in {(rows.verdict == words.split()[-1]).sum()}" for words in ("better", "worse", "a tie"))
    sentences = [f"Against fewer steps at the same budget, by {fd}, of {len(rows)} cases: {counts}."]
    for word in ("better", "worse", "tie"):
        named = rows[rows.verdict == word].sort_values("under", ascending=False).groupby("name", sort=False)
        who = [f"{name} at {', '.join(placed(row) for _, row in of.iterrows())}" for name, of in named]
        sentences += [f"{word.capitalize()}: {'; '.join(who)}."] if who else []
    return sentences


def placed(row):
    """A row's budget, with its mark."""
    return f"{row.under:.3g} ({marks.BELOW})" if marks.below(row) else f"{row.under:.3g}"


def closest(rows):
    """Which row is closest to the full run's own images, and which cannot be told from it."""
    known = rows[rows.latent_mse.notna()].sort_values("latent_mse")
    if known.empty:
        return ""
    best, others = known.iloc[0], [row for _, row in known.iloc[1:].iterrows()]
    text = f"Closest to the full run's images: {best['name']}, latent MSE {tables.phrase(best, LATENT)}"
    tied = [row["name"] for row in others if marks.is_first(row, "latent_mse")]
    if tied:
        return f"{text}, a tie with {'; '.join(tied)}."
    return f"{text}; next {others[0]['name']}, {tables.phrase(others[0], LATENT)}." if others else f"{text}."


def lowest(rows, steps):
    """Which row has the lowest FD less its bias, who ties with it, and whether it differs from fewer steps, the run's method
    `steps`."""
    ranked, fd = rows[rows.best != ""], tables.short(tables.called(rows))
    if ranked.empty:
        return f"No {fd} could be compared."
    if NO_RANKS in {marks.doubt(row, "fd") for _, row in ranked.iterrows()}:
        return f"{NO_RANKS.replace('FD', fd)}, so none is the best by it."
    best = ranked[ranked.method == ranked.best.iloc[0]].iloc[0]
    text = f"Lowest {fd}, less its bias: {marks.named(best)}, {tables.phrase(best, FD)}"
    others = (row for _, row in ranked[ranked.method != best.method].iterrows())
    if tied := [marks.named(row) for row in others if marks.is_first(row, "fd")]:
        text += f", a tie with {'; '.join(tied)}"
    control = compared.control(rows, steps)
    if not control:
        return f"{text}. No step-reduction control ran at this budget."
    if control not in set(ranked.method):
        return f"{text}. Its {fd} could not be compared with that of fewer steps."
    if best.method == control:
        return f"{text}. It is the step-reduction control itself."
    apart = f"{compared.CONTROL.title.replace('FD', fd)} {tables.phrase(best, compared.CONTROL)}"
    return f"{text}. {apart}, p = {tables.number(best.p_holm, 2)}: {best.verdict}."


def not_beyond_random(rows):
    """Which rows do not come closer to the full run's images than a random choice of the same cost, and by how much."""
    known = rows[rows.latent_mse_over_random.notna()]
    if known.empty:
        return ""
    lost = known[known.latent_mse_over_random_high >= 1].sort_values("latent_mse_over_random")
    texts = [f"{row['name']} ({tables.phrase(row, compared.RANDOM)} times its latent MSE)" for _, row in lost.iterrows()]
    return f"Not closer to the full run than a random choice: {'; '.join(texts) or 'none'}."


def facts(cfg, frame, results):
    """[(what, text)] of what was run, on what."""
    good = frame[frame.status == "ok"]

    def listed(column, form=str):
        values = [value for value in good[column].dropna().unique() if value != ""]
        return ", ".join(form(value) for value in values) or "nothing measured"

    date, views = datetime.fromtimestamp(Path(results).stat().st_mtime), sources.spaces(cfg).values()
    return [
        ("Images per setting", listed("count", lambda c: f"{c:.0f}") + f", {cfg['samples']['labels']} labels"),
        ("Budgets", listed_budgets(cfg)),
        ("Rows", f"{len(good)} of {len(frame)} measured"),
        ("Extractor", ", ".join(view["extractor"]["name"] for view in views)),
        ("Reference", ", ".join(dict.fromkeys(view["reference"] for view in views))),
        ("Sampled on", listed("device")),
        ("Timed on", listed("latency_device") + f", batches of {cfg['latency']['batch_size']}"),
        ("Configuration", f"{cfg['name']}, of {date:%Y-%m-%d %H:%M}"),
    ]


def listed_budgets(cfg):
    """The budgets of every run, in a line; the run is named where they differ."""
    of_run = {run: ", ".join(f"{b:g}" for b in matrix.budgets(cfg, run)) for run in cfg["runs"]}
    same = len(set(of_run.values())) == 1
    shown = next(iter(of_run.values())) if same else "; ".join(f"{run}: {budgets}" for run, budgets in of_run.items())
    return f"{shown}, met within {cfg['tolerance']:g}"


def embed(path):
    """The image file as a data URI; of pixels the smaller WebP, without loss."""
    kind, content = "svg+xml", Path(path).read_bytes()
    if Path(path).suffix == ".png":
        kind, memory = "webp", io.BytesIO()
        Image.open(path).convert("RGB").save(memory, "WEBP", lossless=True)
        content = memory.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def drawn(paths, files, folder):
    """Context of the figures of a run, or of those of all runs, in page order, among the figure files `paths`. One that only
    says why it is empty is left out."""
    here, out = [path for path in map(Path, paths) if path.parent.name == (files.run or "figures")], []
    for figure in figures.available():
        by_ending = {path.suffix[1:]: path for path in here if path.stem == figure.name}
        if by_ending and f'id="{EMPTY}"' not in by_ending["svg"].read_text("utf-8"):
            table = getattr(figures.load(figure.name), "table", None)
            shown = {"data": embed(by_ending[figure.embed]), "table": table and table(files)}
            links = {ending: os.path.relpath(path, folder) for ending, path in by_ending.items()}
            out.append(vars(figure) | shown | {"files": links})
    return out


def as_json(value):
    return json.dumps(value, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # no </script> inside


def pack(text):
    """What unpack.js makes the text of again."""
    return base64.b64encode(zlib.compress(str(text).encode(), 9)).decode()


def script(text):
    """{"text", "digest"} of an inline script; the digest is what the page's security policy allows to run."""
    return {"text": text, "digest": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}


def render(cfg, frame, results, paths, folder, data, printed=(), measures=(), flaws=(), absent=""):
    """The page's HTML. `paths` are the figure files of all runs, `folder` is where the page will lie, beside results.csv;
    `data` is what collect.collect returned; `printed` are rows of published.csv, `measures` those of validity.csv,
    `flaws` what flaws.flaws says, `absent` what collect.absent does."""
    runs = []
    for run in (run["name"] for run in data["runs"]):
        lead, budgets = summary(frame, run)
        table, shown = tables.build(frame, run), drawn(paths, Files(cfg, run, folder, frame), folder)
        section = {"name": run, "table": table, "lead": lead, "budgets": budgets, "figures": shown}
        section["fd_ranks"] = marks.unranked(frame[frame.run == run]) != NO_RANKS
        runs.append(section | {"compared": compared.groups(frame, run)})
    of_all = drawn(paths, Files(cfg, None, folder, frame), folder)
    loader = jinja2.FileSystemLoader(HERE)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["pack"] = pack
    environment.globals |= {
        "direction": tables.direction,
        "DASH": marks.DASH,
        "UNREACHABLE": league.UNREACHABLE,
        "FAILED": league.FAILED,
        "placed": league.placed,
        "SIGNS": league.SIGNS,
        "EFFORTS": answers.ALLOWED,
        "MEANINGS": {by: answers.worded(answers.MEANINGS, by, frame) for by in answers.meanings(cfg)},
        "COMPARED": compared.headings(tables.called(frame)),
    }
    unpack, *page_scripts = ((HERE / f"{name}.js").read_text("utf-8") for name in ("unpack", "page", "panel", "chart"))
    scripts = [script(text) for text in (unpack, get_plotlyjs(), *page_scripts)]
    light = [{key: value for key, value in entry.items() if key != "images"} for entry in (*data["settings"], *data["runs"])]
    rows = len(data["settings"])
    text = as_json(data | {"settings": light[:rows], "runs": light[rows:]})
    images = as_json(
        {
            entry.get("id", entry.get("name")): entry["images"]
            for entry in (*data["settings"], *data["runs"])
            if entry.get("images")
        }
    )
    context = {"facts": facts(cfg, frame, results), "runs": runs, "figures": of_all, "scripts": scripts}
    context |= {"printed": printed, "margin": published.MARGIN}
    ways = ((by, effort) for by in answers.meanings(cfg) for effort in EFFORTS)
    context["answers"] = [{"by": by, "effort": effort} | answers.matrix(cfg, frame, by, effort) for by, effort in ways]
    context["leagues"] = [league.table(cfg, frame, by) for by in answers.meanings(cfg) if by != judged.MARGIN]
    context |= {"flaws": flaws, "absent": absent}
    context["measures"] = [(line["run"], validity.words(line)) for line in measures]
    return environment.get_template("page.html.j2").render(name=cfg["name"], data=data, json=text, images=images, **context)
