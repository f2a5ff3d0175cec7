# Where along the trajectory the error of each setting arises: one job per run, since all are compared with its full run.
rule trace:
    input:
        plugins=lambda wildcards: [str(method.file_of(name)) for name in methods_of(wildcards.run)],
        settings=lambda wildcards: [f"{RESULTS}/{wildcards.run}/{name}/settings.json" for name in methods_of(wildcards.run)],
        fits=lambda wildcards: fits_of(wildcards.run),
        weights=weights,
    output:
        report(
            f"{RESULTS}/{{run}}/trace.csv",
            caption="../report/trace.rst",
            category="Tables",
            labels={"table": "{run}, trace", "format": "csv"},
        ),
    log:
        f"logs/{CONFIG['name']}/{{run}}/trace.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-trace.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        identity=identity,
        samples=lambda wildcards: canonical(
            CONFIG["trace"], {key: CONFIG["samples"][key] for key in ("first_seed", "labels", "batch_size")}
        ),
        tracing=store.digest([PACKAGE / "trace.py"]),
    shell:
        "$PYTHON $SCRIPTS/trace.py --config {params.config} --run {wildcards.run} --folder $(dirname $(dirname {output})) "
        "--out {output} --threads {threads} > {log} 2>&1"
