# Times every method that needs no fit on this machine: `snakemake speed --cores all --configfile config/speed.yaml`.
rule speed:
    output:
        f"{RESULTS}/speed.csv",
    log:
        f"logs/{CONFIG['name']}/speed.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        settings=canonical(
            *(CONFIG[key] for key in ("runs", "backbones", "speed", "methods", "params", "budgets", "tolerance")), ENGINE
        ),
        timing=store.digest([*(PACKAGE / f"{name}.py" for name in ("speed", "modes", "straight")), method.FOLDER]),
    shell:
        "$PYTHON $SCRIPTS/speed.py --config {params.config} --out {output} --threads {threads} 2>&1 | tee {log}"
