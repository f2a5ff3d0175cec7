# Times every method that needs no fit on this machine: `snakemake speed --cores all --configfile config/speed.yaml`.
rule speed:
    output:
        TREE.file("speed.csv"),
    log:
        f"{LOGS}/speed.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        said=canonical(*(CONFIG[key] for key in ("runs", "backbones", "speed", "methods", "params", "budgets", "tolerance"))),
        code=closure.digest([SCRIPTS / "speed.py", PACKAGE / "engine", loader.FOLDER]),
    shell:
        "$PYTHON $SCRIPTS/speed.py --out {output} 2>&1 | tee {log}"
