# `snakemake diff --config file_a=results/x/results.csv file_b=results/y/results.csv` (Snakemake takes no
# one-letter keys): without an output, so that it always runs.
rule diff:
    log:
        "logs/diff.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        a=COMPARED.get("file_a", ""),
        b=COMPARED.get("file_b", ""),
    shell:
        "job diff --a {params.a:q} --b {params.b:q} --csv results/diff/diff.csv "
        "--markdown results/diff/diff.md 2>&1 | tee {log:q}"
