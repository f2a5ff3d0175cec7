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


# What the tables, figures and the page are made by, besides their inputs.
DRAWING = store.digest([PACKAGE / name for name in REPORTING])
TEMPLATE = store.digest([store.ROOT / "workflow/report/page.html.j2"])
FIGURES = ("pareto", "fidelity", "schedules", "routers", "fits", "samples")


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


rule plots:
    input:
        results=f"{RESULTS}/results.csv",
        fits=lambda wildcards: [
            f"{RESULTS}/{wildcards.run}/{name}/fit/{fit}.{ending}"
            for name in METHODS
            for fit in FITS[name]
            for ending in ("safetensors", "csv", "json")
        ],
        images=lambda wildcards: [shard for name in METHODS for shard in shards(wildcards.run, name)],
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


rule page:
    input:
        results=f"{RESULTS}/results.csv",
        tables=rules.tables.output,
        figures=expand(
            f"{RESULTS}/figures/{{run}}/{{figure}}.{{ending}}", run=CONFIG["runs"], figure=FIGURES, ending=("png", "svg")
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
        "$PYTHON $SCRIPTS/page.py --config {params.config} --results {input.results} --figures {input.figures} "
        "--out {output} > {log} 2>&1"
