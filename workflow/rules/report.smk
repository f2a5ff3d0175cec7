rule collect:
    input:
        results_of(TREE.settings),
        results_of(TREE.scores),
        results_of(TREE.latency),
    output:
        table=report(
            TREE.file("results.csv"),
            caption="../report/results.rst",
            category="Tables",
            labels={"table": "results", "format": "csv"},
        ),
        config=TREE.file("config.yaml"),
    log:
        f"{LOGS}/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=RESULTS,
        config=canonical(CONFIG),
        code=code("collect"),
    shell:
        "$PYTHON $SCRIPTS/collect.py --folder {params.results} --out {output.table} --written {output.config} > {log} 2>&1"


rule comparisons:
    input:
        results=TREE.file("results.csv"),
        scores=results_of(TREE.scores),
    output:
        report(
            TREE.file("comparisons.csv"),
            caption="../report/comparisons.rst",
            category="Tables",
            labels={"table": "comparisons", "format": "csv"},
        ),
    log:
        f"{LOGS}/comparisons.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=RESULTS,
        code=code("comparisons"),
    shell:
        "$PYTHON $SCRIPTS/comparisons.py --results {input.results} --folder {params.results} --out {output} > {log} 2>&1"


TEMPLATE = [PACKAGE / f"report/page/page.{ending}" for ending in ("html.j2", "css", "js")]
FIGURES = ("pareto", "differences", "fidelity", *["infinity"] * CONFIG["metrics"]["infinity"])
FIGURES += ("trace", "routers", "fits", "samples")
FORMATS = ("png", "svg", "pdf")


rule tables:
    input:
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
    output:
        [
            report(
                TREE.table(run, ending),
                caption="../report/table.rst",
                category="Tables",
                labels={"table": run, "format": ending},
            )
            for run in CONFIG["runs"]
            for ending in ("csv", "md", "tex")
        ],
    log:
        f"{LOGS}/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("tables"),
    shell:
        "$PYTHON $SCRIPTS/tables.py --results {input.results} --comparisons {input.comparisons} " "--out {output} > {log} 2>&1"


rule schedules:
    input:
        expand(TREE.figure("schedules", "png", RUN), run=CONFIG["runs"]),
    localrule: True


# The schedules of all settings as heat maps side by side, and of those that only reuse JSON files that `schedule_file` reads.
rule gallery:
    input:
        settings=lambda wildcards: [TREE.settings(wildcards.run, name) for name in methods_of(wildcards.run)],
        fits=lambda wildcards: fits_of(wildcards.run),
    output:
        figures=[
            report(
                TREE.figure("schedules", ending, RUN),
                caption="../report/schedules.rst",
                category="Figures",
                subcategory="{run}",
                labels={"figure": "schedules", "format": ending},
            )
            for ending in FORMATS
        ],
        folder=directory(TREE.schedules(RUN)),
    log:
        f"{LOGS}/{{run}}/gallery.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=RESULTS,
        code=code("gallery"),
    shell:
        "$PYTHON $SCRIPTS/gallery.py --run {wildcards.run} --folder {params.results} "
        "--schedules {output.folder} --out {output.figures} > {log} 2>&1"


rule plots:
    input:
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
        fits=lambda wildcards: fits_of(wildcards.run),
        images=lambda wildcards: images_of(wildcards.run),
        trace=TREE.trace(RUN),
        scores=lambda wildcards: [TREE.scores(wildcards.run, name) for name in methods_of(wildcards.run)],
    output:
        [
            report(
                TREE.figure(figure, ending, RUN),
                caption=f"../report/{figure}.rst",
                category="Figures",
                subcategory="{run}",
                labels={"figure": figure, "format": ending},
            )
            for figure in FIGURES
            for ending in FORMATS
        ],
    log:
        f"{LOGS}/{{run}}/plots.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=RESULTS,
        code=code("plots"),
    shell:
        "$PYTHON $SCRIPTS/plots.py --run {wildcards.run} --results {input.results} "
        "--comparisons {input.comparisons} --folder {params.results} --out {output} > {log} 2>&1"


# Which half of a solver's evaluations can be reused: drawn where a run probes both.
PROBED = any({"alternate.outer", "alternate.mid"} <= set(methods_of(run)) for run in CONFIG["runs"])


rule solvers:
    input:
        TREE.file("results.csv"),
    output:
        [
            report(
                TREE.figure("solvers", ending),
                caption="../report/solvers.rst",
                category="Figures",
                labels={"figure": "solvers", "format": ending},
            )
            for ending in FORMATS
        ],
    log:
        f"{LOGS}/solvers.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("solvers"),
    shell:
        "$PYTHON $SCRIPTS/solvers.py --results {input} --out {output} > {log} 2>&1"


rule page:
    input:
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
        verdicts=VERDICTS[:1],
        tables=rules.tables.output,
        solvers=rules.solvers.output if PROBED else [],
        figures=expand(
            TREE.figure("{figure}", "{ending}", RUN),
            run=CONFIG["runs"],
            figure=(*FIGURES, "schedules"),
            ending=FORMATS,
        ),
        settings=results_of(TREE.settings),
        fits=[file for run in CONFIG["runs"] for file in fits_of(run)],
        images=[file for run in CONFIG["runs"] for file in images_of(run)],
    output:
        TREE.file("index.html"),
    log:
        f"{LOGS}/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=[code("page"), *map(atomic.sha256, TEMPLATE)],
        printed=f"--verdicts {VERDICTS[0]}" if VERDICTS else "",
    shell:
        "$PYTHON $SCRIPTS/page.py --results {input.results} --comparisons {input.comparisons} "
        "{params.printed} --figures {input.figures} {input.solvers} --out {output} > {log} 2>&1"
