# `snakemake transfer`: schedules fitted on one run, used on another of the same backbone and sampler.
rule transfer:
    input:
        expand(f"{RESULTS}/transfer.{{ending}}", ending=("csv", "md", *FORMATS)),
    localrule: True


# One job for all schedules that are used on a run, since all are compared with its full run.
rule transfer_column:
    input:
        plugins=lambda wildcards: [str(method.file_of(name)) for name in transfer.methods(CONFIG, wildcards.run)],
        fits=lambda wildcards: [file for run in transfer.partners(CONFIG, wildcards.run) for file in fits_of(run)],
        weights=weights,
    output:
        f"{RESULTS}/transfer/{{run}}.csv",
    log:
        f"logs/{CONFIG['name']}/{{run}}/transfer.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-transfer.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        identity=identity,
        samples=canonical(CONFIG["samples"], CONFIG["tolerance"]),
        budgets=lambda wildcards: settings.budgets(CONFIG, wildcards.run),
        transferring=store.digest([PACKAGE / "transfer.py"]),
    shell:
        "$PYTHON $SCRIPTS/transfer.py --config {params.config} --run {wildcards.run} --folder $(dirname $(dirname {output})) "
        "--out {output} --threads {threads} > {log} 2>&1"


rule transfer_table:
    input:
        expand(f"{RESULTS}/transfer/{{run}}.csv", run=CONFIG["runs"]),
    output:
        [
            report(
                f"{RESULTS}/transfer.{ending}",
                caption="../report/transfer.rst",
                category="Tables" if ending in ("csv", "md") else "Figures",
                labels={"figure" if ending in FORMATS else "table": "transfer", "format": ending},
            )
            for ending in ("csv", "md", *FORMATS)
        ],
    log:
        f"logs/{CONFIG['name']}/transfer.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        drawing=DRAWING,
    shell:
        "$PYTHON $SCRIPTS/transfer_table.py --columns {input} --out {output} > {log} 2>&1"
