# `snakemake transfer`: schedules fitted on one run, used on another of the same backbone and sampler.
rule transfer:
    input:
        expand(f"{RESULTS}/transfer.{{ending}}", ending=("csv", "md", *FORMATS)),
    localrule: True


# One job for all schedules that are used on a run, since all are compared with its full run.
rule transfer_column:
    input:
        plugins=lambda wildcards: [file for name in matrix.fitted(CONFIG, wildcards.run) for file in loader.files_of(name)],
        fits=lambda wildcards: [file for run in matrix.partners(CONFIG, wildcards.run) for file in fits_of(run)],
        weights=weights,
    output:
        TREE.transfer(RUN),
    log:
        f"{LOGS}/{{run}}/transfer.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        identity=identity("transfer"),
        results=lambda wildcards: RESULTS,
        samples=canonical(CONFIG["samples"], CONFIG["tolerance"]),
        budgets=lambda wildcards: matrix.budgets(CONFIG, wildcards.run),
    shell:
        "job transfer --run {wildcards.run} --folder {params.results:q} --out {output:q} > {log:q} 2>&1"


rule transfer_table:
    input:
        expand(TREE.transfer(RUN), run=CONFIG["runs"]),
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
        f"{LOGS}/transfer.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("transfer_table"),
    shell:
        "job transfer_table --columns {input:q} --out {output:q} > {log:q} 2>&1"
