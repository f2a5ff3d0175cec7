# Where along the trajectory the error of each setting arises: one job per run, since all are compared with its full run.
rule trace:
    input:
        plugins=lambda wildcards: [file for name in methods_of(wildcards.run) for file in loader.files_of(name)],
        settings=lambda wildcards: [TREE.settings(wildcards.run, name) for name in methods_of(wildcards.run)],
        fits=lambda wildcards: fits_of(wildcards.run),
        scores=lambda wildcards: [TREE.scores(wildcards.run, name) for name in methods_of(wildcards.run)],
        weights=weights,
    output:
        report(
            TREE.trace(RUN),
            caption="../report/trace.rst",
            category="Tables",
            labels={"table": "{run}, trace", "format": "csv"},
        ),
    log:
        f"{LOGS}/{{run}}/trace.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        identity=identity("trace"),
        results=lambda wildcards: RESULTS,
        samples=lambda wildcards: canonical(
            CONFIG["trace"], {key: CONFIG["samples"][key] for key in ("first_seed", "labels", "batch_size")}
        ),
    shell:
        "job trace --run {wildcards.run} --folder {params.results:q} --out {output:q} > {log:q} 2>&1"
