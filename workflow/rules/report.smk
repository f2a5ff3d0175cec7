rule collect:
    input:
        results_of(TREE.settings),
        results_of(TREE.scores),
        expand(TREE.latency(RUN), run=CONFIG["runs"]),
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
        results=lambda wildcards: RESULTS,
        config=canonical(CONFIG),
        code=code("collect"),
    shell:
        "job collect --folder {params.results:q} --out {output.table:q} --written {output.config:q} > {log:q} 2>&1"


rule comparisons:
    input:
        results=TREE.file("results.csv"),
        scores=results_of(TREE.scores),
    output:
        table=report(
            TREE.file("comparisons.csv"),
            caption="../report/comparisons.rst",
            category="Tables",
            labels={"table": "comparisons", "format": "csv"},
        ),
        looks=[update(TREE.file("looks.csv"))] if "until" in CONFIG["samples"] else [],
    log:
        f"{LOGS}/comparisons.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards: RESULTS,
        quality=canonical(CONFIG.get("quality")),
        code=code("comparisons"),
    shell:
        "job comparisons --results {input.results:q} --folder {params.results:q} --looks {output.looks:q} "
        "--out {output.table:q} > {log:q} 2>&1"


rule validity:
    input:
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
        scores=[TREE.scores(run, "full") for run in CONFIG["runs"]],
    output:
        report(
            TREE.file("validity.csv"),
            caption="../report/validity.rst",
            category="Tables",
            labels={"table": "validity", "format": "csv"},
        ),
    log:
        f"{LOGS}/validity.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards: RESULTS,
        code=code("validity"),
    shell:
        "job validity --results {input.results:q} --comparisons {input.comparisons:q} "
        "--folder {params.results:q} --out {output:q} > {log:q} 2>&1"


TEMPLATE = sorted(path for ending in ("j2", "css", "js") for path in PACKAGE.glob(f"report/page/*.{ending}"))
FIGURES = PACKAGE / "report/figures"


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
            for ending in ("md", "tex")
        ],
    log:
        f"{LOGS}/tables.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("tables"),
    shell:
        "job tables --results {input.results:q} --comparisons {input.comparisons:q} --out {output:q} > {log:q} 2>&1"


rule schedules:
    input:
        expand(TREE.schedules(RUN), run=CONFIG["runs"]),
    localrule: True


# Schedules of all settings that only reuse, as JSON files that `schedule_file` reads.
rule schedule_files:
    input:
        settings=lambda wildcards: [TREE.settings(wildcards.run, name) for name in methods_of(wildcards.run)],
        fits=lambda wildcards: fits_of(wildcards.run),
    output:
        directory(TREE.schedules(RUN)),
    log:
        f"{LOGS}/{{run}}/schedule-files.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        results=lambda wildcards: RESULTS,
        code=code("schedule_files"),
    shell:
        "job schedule_files --run {wildcards.run} --folder {params.results:q} --out {output:q} > {log:q} 2>&1"


rule plots:
    input:
        unpack(lambda wildcards: drawn_from(wildcards.run)),
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
    output:
        plotted("run", RUN, subcategory=RUN),
    log:
        f"{LOGS}/{{run}}/plots.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        run=["--run", RUN],
        results=lambda wildcards: RESULTS,
        captions=captions("run"),
        code=closure.digest([SCRIPTS / "plots.py", FIGURES]),
    shell:
        "job plots {params.run:q} --results {input.results:q} "
        "--comparisons {input.comparisons:q} --folder {params.results:q} --out {output:q} > {log:q} 2>&1"


use rule plots as plots_of_all with:
    input:
        unpack(lambda wildcards: drawn_from(*CONFIG["runs"])),
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
    output:
        plotted("all"),
    log:
        f"{LOGS}/plots.log",
    params:
        run=[],
        captions=captions("all"),


# What Snakemake's own report begins with.
answer = Path(TREE.file("answer.txt"))
config["answer"] = answer.read_text("utf-8").splitlines() if answer.exists() else []


rule page:
    input:
        unpack(lambda wildcards: drawn_from(*CONFIG["runs"])),
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
        validity=TREE.file("validity.csv"),
        published=PRINTED[:1],
        tables=rules.tables.output,
        figures=[*expand(rules.plots.output, run=CONFIG["runs"]), *rules.plots_of_all.output],
    output:
        page=TREE.file("index.html"),
        answer=report(
            TREE.file("answer.txt"),
            caption="../report/answer.rst",
            category="Answer",
            labels={"table": "answer", "format": "txt"},
        ),
    log:
        f"{LOGS}/page.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=[closure.digest([SCRIPTS / "page.py", FIGURES]), *map(atomic.sha256, TEMPLATE)],
        printed=["--published", PRINTED[0]] if PRINTED else [],
    shell:
        "TERMINAL=3 job page --results {input.results:q} --comparisons {input.comparisons:q} --validity {input.validity:q} "
        "{params.printed:q} --figures {input.figures:q} --answer {output.answer:q} --out {output.page:q} 3>&2 > {log:q} 2>&1"


# `snakemake gate`: fails where a method that `quality.gate` names is not within the margin; without an output it always runs.
rule gate:
    input:
        results=TREE.file("results.csv"),
        comparisons=TREE.file("comparisons.csv"),
    log:
        f"{LOGS}/gate.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "job gate --results {input.results:q} --comparisons {input.comparisons:q} 2>&1 | tee {log:q}"
