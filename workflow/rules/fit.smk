rule fit:
    input:
        plugin=plugin_file,
        weights=weights,
        calibration=CONFIG["calibration"] if IMAGES or settings.is_made(CONFIG, CONFIG["calibration"]) else [],
    output:
        state=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.safetensors",
        curve=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.csv",
        report=f"{RESULTS}/{{run}}/{{method}}/fit/{{fit}}.json",
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/fit-{{fit}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-fit-{{fit}}.tsv"
    priority: 10
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        identity=identity,
        calibration=calibration_identity(),
        launcher=launcher,
    shell:
        "$PYTHON {params.launcher} $SCRIPTS/fit.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--fit {wildcards.fit:q} --state {output.state:q} --curve {output.curve:q} --report {output.report:q} "
        "--threads {threads} > {log:q} 2>&1"


rule match:
    input:
        plugin=plugin_file,
        states=states,
        weights=weights,
    output:
        f"{RESULTS}/{{run}}/{{method}}/settings.json",
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/match.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-match.tsv"
    priority: 9
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        identity=identity,
        budgets=lambda wildcards: budgets(wildcards.run, wildcards.method),
        grid=lambda wildcards: canonical(
            settings.overrides(CONFIG, wildcards.method, wildcards.run),
            list(settings.fixed(CONFIG, wildcards.run, wildcards.method).values()),
            CONFIG["tolerance"],
        ),
    shell:
        "$PYTHON $SCRIPTS/match.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--states {input.states:q} --out {output} > {log} 2>&1"
