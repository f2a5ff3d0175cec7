rule fit:
    input:
        plugin=plugin_file,
        weights=weights,
    output:
        state=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.safetensors",
        curve=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.csv",
        report=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.json",
    params:
        config=CONFIGFILE,
        identity=identity,
        calibration=CONFIG["calibration"],
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/fit-{{fit}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-fit-{{fit}}.tsv"
    conda:
        "../../environment.yml"
    threads: workflow.cores
    priority: 10
    resources:
        gpu=GPU,
    shell:
        "$PYTHON $SCRIPTS/fit.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--fit {wildcards.fit:q} --state {output.state:q} --curve {output.curve:q} --report {output.report:q} "
        "--threads {threads} > {log:q} 2>&1"


rule match:
    input:
        plugin=plugin_file,
        states=states,
        weights=weights,
    output:
        f"{RESULTS}/{{run}}/{{method}}/settings.json",
    params:
        config=CONFIGFILE,
        identity=identity,
        budgets=lambda wildcards: budgets(wildcards.method),
        grid=lambda wildcards: [CONFIG["params"].get(wildcards.method), CONFIG["tolerance"]],
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/match.log",
    conda:
        "../../environment.yml"
    priority: 9
    shell:
        "$PYTHON $SCRIPTS/match.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--budgets {params.budgets} --states {input.states:q} --out {output} > {log} 2>&1"
