rule collect:
    input:
        results_of("settings.json"),
        results_of("scores.json"),
        results_of("latency.json"),
    output:
        f"{RESULTS}/results.csv",
    log:
        f"logs/{CONFIG['name']}/collect.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
    shell:
        "$PYTHON $SCRIPTS/collect.py --config {params.config} --folder $(dirname {output}) --out {output} > {log} 2>&1"
