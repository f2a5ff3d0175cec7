rule collect:
    input:
        results_of("settings.json"),
        results_of("scores.json"),
        results_of("latency.json"),
    output:
        report(f"{RESULTS}/results.csv", caption="../report/results.rst", category="Tables", labels={"format": "csv"}),
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
            labels={"format": "csv"},
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
TEMPLATE = store.digest([store.ROOT / "workflow/report/page.html.j2"])
FIGURES = ("pareto", "fidelity", "routers", "fits", "samples")


rule tables:
    input:
        f"{RESULTS}/results.csv",
    output:
        [
            report(
                f"{RESULTS}/tables/{run}.{ending}",
                caption="../report/table.rst",
                category="Tables",
                labels={"run": run, "format": ending},
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
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/tables.py --results {input} --out {output} > {log} 2>&1"


def fits_of(wildcards):
    return [
        f"{RESULTS}/{wildcards.run}/{name}/fit/{fit}.{ending}"
        for name in methods_of(wildcards.run)
        for fit in FITS[wildcards.run, name]
        for ending in ("safetensors", "csv", "json")
    ]


rule schedules:
    input:
        expand(f"{RESULTS}/figures/{{run}}/schedules.png", run=CONFIG["runs"]),
    localrule: True


# The schedules of all settings as heat maps side by side, and as JSON files that `schedule_file` reads.
rule gallery:
    input:
        settings=lambda wildcards: [f"{RESULTS}/{wildcards.run}/{name}/settings.json" for name in methods_of(wildcards.run)],
        fits=fits_of,
    output:
        [
            report(
                f"{RESULTS}/figures/{{run}}/schedules.{ending}",
                caption="../report/schedules.rst",
                category="Figures",
                subcategory="{run}",
                labels={"figure": "schedules", "format": ending},
            )
            for ending in ("png", "svg")
        ],
        folder=directory(f"{RESULTS}/schedules/{{run}}"),
    log:
        f"logs/{CONFIG['name']}/{{run}}/gallery.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        results=RESULTS,
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/gallery.py --config {params.config} --run {wildcards.run} --folder {params.results} "
        "--schedules {output.folder} --out {output[0]} {output[1]} > {log} 2>&1"


rule plots:
    input:
        results=f"{RESULTS}/results.csv",
        fits=fits_of,
        images=lambda wildcards: [shard for name in methods_of(wildcards.run) for shard in shards(wildcards.run, name)],
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
            for ending in ("png", "svg")
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
        "--folder $(dirname {input.results}) --out {output} > {log} 2>&1"


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
            for ending in ("png", "svg")
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
        tables=rules.tables.output,
        solvers=rules.solvers.output if PROBED else [],
        figures=expand(
            f"{RESULTS}/figures/{{run}}/{{figure}}.{{ending}}",
            run=CONFIG["runs"],
            figure=(*FIGURES, "schedules"),
            ending=("png", "svg"),
        ),
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
    shell:
        "$PYTHON $SCRIPTS/page.py --config {params.config} --results {input.results} "
        "--figures {input.figures} {input.solvers} --out {output} > {log} 2>&1"
