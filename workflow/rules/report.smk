rule collect:
    input:
        results_of("settings.json"),
        results_of("scores.json"),
        results_of("latency.json"),
    output:
        f"{RESULTS}/results.csv",
    params:
        config=CONFIGFILE,
        folder=RESULTS,
    log:
        f"logs/{CONFIG['name']}/collect.log",
    conda:
        "../../environment.yml"
    localrule: True
    shell:
        "$PYTHON $SCRIPTS/collect.py --config {params.config} --folder {params.folder} --out {output} > {log} 2>&1"
