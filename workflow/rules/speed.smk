# Times every static method on this machine: `snakemake speed --cores all --configfile config/speed.yaml`.
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
        settings=canonical(CONFIG["runs"], CONFIG["backbones"], CONFIG["speed"], CONFIG["methods"], ENGINE),
        timing=store.digest([PACKAGE / "speed.py"]),
    shell:
        "$PYTHON $SCRIPTS/speed.py --config {params.config} --out {output} --threads {threads} 2>&1 | tee {log}"
