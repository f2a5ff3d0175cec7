rule collect:
    input:
        results_of("settings.json"),
        results_of("scores.json"),
        results_of("latency.json"),
    output:
        report(
            f"{RESULTS}/results.csv",
            caption="../report/results.rst",
            category="Tables",
            labels={"table": "results", "format": "csv"},
        ),
    log:
        f"logs/{CONFIG['name']}/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
    shell:
        "$PYTHON $SCRIPTS/collect.py --config {params.config} --folder $(dirname {output}) --out {output} > {log} 2>&1"


rule comparisons:
    input:
        results=f"{RESULTS}/results.csv",
        scores=results_of("scores.json"),
    output:
        report(
            f"{RESULTS}/comparisons.csv",
            caption="../report/comparisons.rst",
            category="Tables",
            labels={"table": "comparisons", "format": "csv"},
        ),
    log:
        f"logs/{CONFIG['name']}/comparisons.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        comparing=store.digest([PACKAGE / "compare.py", PACKAGE / "readouts.py"]),
    shell:
        "$PYTHON $SCRIPTS/comparisons.py --results {input.results} --folder $(dirname {output}) --out {output} > {log} 2>&1"


# What the tables, figures and the page are made by, besides their inputs.
DRAWING = store.digest([PACKAGE / name for name in REPORTING])
TEMPLATE = store.digest(store.ROOT / f"workflow/report/page.{ending}" for ending in ("html.j2", "css", "js"))
FIGURES = ("pareto", "differences", "fidelity", *["infinity"] * CONFIG["metrics"]["infinity"])
FIGURES += ("trace", "routers", "fits", "samples")
FORMATS = ("png", "svg", "pdf")


rule tables:
    input:
        results=f"{RESULTS}/results.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
    output:
        [
            report(
                f"{RESULTS}/tables/{run}.{ending}",
                caption="../report/table.rst",
                category="Tables",
                labels={"table": run, "format": ending},
            )
            for run in CONFIG["runs"]
            for ending in ("csv", "md", "tex")
        ],
    log:
        f"logs/{CONFIG['name']}/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/tables.py --config {params.config} --results {input.results} --comparisons {input.comparisons} "
        "--out {output} > {log} 2>&1"


rule schedules:
    input:
        expand(f"{RESULTS}/figures/{{run}}/schedules.png", run=CONFIG["runs"]),
    localrule: True


# The schedules of all settings as heat maps side by side, and of those that only reuse JSON files that `schedule_file` reads.
rule gallery:
    input:
        settings=lambda wildcards: [f"{RESULTS}/{wildcards.run}/{name}/settings.json" for name in methods_of(wildcards.run)],
        fits=lambda wildcards: fits_of(wildcards.run),
    output:
        figures=[
            report(
                f"{RESULTS}/figures/{{run}}/schedules.{ending}",
                caption="../report/schedules.rst",
                category="Figures",
                subcategory="{run}",
                labels={"figure": "schedules", "format": ending},
            )
            for ending in FORMATS
        ],
        folder=directory(f"{RESULTS}/schedules/{{run}}"),
    log:
        f"logs/{CONFIG['name']}/{{run}}/gallery.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/gallery.py --config {params.config} --run {wildcards.run} --folder $(dirname $(dirname {output.folder})) "
        "--schedules {output.folder} --out {output.figures} > {log} 2>&1"


rule plots:
    input:
        results=f"{RESULTS}/results.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
        fits=lambda wildcards: fits_of(wildcards.run),
        images=lambda wildcards: images_of(wildcards.run),
        trace=f"{RESULTS}/{{run}}/trace.csv",
        scores=lambda wildcards: [f"{RESULTS}/{wildcards.run}/{name}/scores.json" for name in methods_of(wildcards.run)],
    output:
        [
            report(
                f"{RESULTS}/figures/{{run}}/{figure}.{ending}",
                caption=f"../report/{figure}.rst",
                category="Figures",
                subcategory="{run}",
                labels={"figure": figure, "format": ending},
            )
            for figure in FIGURES
            for ending in FORMATS
        ],
    log:
        f"logs/{CONFIG['name']}/{{run}}/plots.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/plots.py --config {params.config} --run {wildcards.run} --results {input.results} "
        "--comparisons {input.comparisons} --folder $(dirname {input.results}) --out {output} > {log} 2>&1"


# Which half of a solver's evaluations can be reused: drawn where a run probes both.
PROBED = any({"alternate.outer", "alternate.mid"} <= set(methods_of(run)) for run in CONFIG["runs"])


rule solvers:
    input:
        f"{RESULTS}/results.csv",
    output:
        [
            report(
                f"{RESULTS}/figures/solvers.{ending}",
                caption="../report/solvers.rst",
                category="Figures",
                labels={"figure": "solvers", "format": ending},
            )
            for ending in FORMATS
        ],
    log:
        f"logs/{CONFIG['name']}/solvers.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/solvers.py --results {input} --out {output} > {log} 2>&1"


rule page:
    input:
        results=f"{RESULTS}/results.csv",
        comparisons=f"{RESULTS}/comparisons.csv",
        verdicts=VERDICTS[:1],
        tables=rules.tables.output,
        solvers=rules.solvers.output if PROBED else [],
        figures=expand(
            f"{RESULTS}/figures/{{run}}/{{figure}}.{{ending}}",
            run=CONFIG["runs"],
            figure=(*FIGURES, "schedules"),
            ending=FORMATS,
        ),
        settings=results_of("settings.json"),
        fits=[file for run in CONFIG["runs"] for file in fits_of(run)],
        images=[file for run in CONFIG["runs"] for file in images_of(run)],
    output:
        f"{RESULTS}/index.html",
    log:
        f"logs/{CONFIG['name']}/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        drawing=[DRAWING, TEMPLATE],
        printed=f"--verdicts {VERDICTS[0]}" if VERDICTS else "",
    shell:
        "$PYTHON $SCRIPTS/page.py --config {params.config} --results {input.results} --comparisons {input.comparisons} "
        "{params.printed} --figures {input.figures} {input.solvers} --out {output} > {log} 2>&1"
