rule fit:
    input:
        plugin=plugin_files,
        weights=weights,
        calibration=CONFIG["calibration"] if IMAGES or sources.is_made(CONFIG, CONFIG["calibration"]) else [],
        training=training,
    output:
        state=TREE.fit(RUN, METHOD, "{fit}"),
        curve=TREE.fit(RUN, METHOD, "{fit}", "csv"),
        report=TREE.fit(RUN, METHOD, "{fit}", "json"),
    log:
        f"{LOGS}/{{run}}/{{method}}/fit-{{fit}}.log",
    priority: 10
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        identity=identity("fit"),
        calibration=calibration_identity(),
        launcher=launcher,
    shell:
        "LOG={log:q} LAUNCHER={params.launcher:q} job fit --run {wildcards.run} --method {wildcards.method} "
        "--fit {wildcards.fit:q} --training {input.training:q} --state {output.state:q} --curve {output.curve:q} --report {output.report:q} "
        "> {log:q} 2>&1"


rule match:
    input:
        plugin=plugin_files,
        states=states,
        weights=weights,
    output:
        TREE.settings(RUN, METHOD),
    log:
        f"{LOGS}/{{run}}/{{method}}/match.log",
    priority: 9
    conda:
        "../../environment.yml"
    params:
        identity=identity("match"),
        budgets=lambda wildcards: budgets(wildcards.run, wildcards.method),
        grid=lambda wildcards: canonical(
            matrix.overrides(CONFIG, wildcards.method, wildcards.run),
            list(matrix.fixed(CONFIG, wildcards.run, wildcards.method).values()),
            CONFIG["tolerance"],
            *([CONFIG["trajectories"]] if "trajectories" in CONFIG else []),
        ),
    shell:
        "TERMINAL=3 LOG={log:q} job match --run {wildcards.run} --method {wildcards.method} "
        "--states {input.states:q} --out {output:q} 3>&2 > {log:q} 2>&1"
