# One job for all settings of a method, since each has to load torch. The shards are no output: Snakemake deletes those of a job
# that is stopped or runs again, and the job itself keeps the shards that are made of the same.
rule sample:
    input:
        plugin=plugin_files,
        settings=TREE.settings(RUN, METHOD),
        states=states,
        weights=weights,
        decoder=decoder,
        extractors=EXTRACTOR_FILES,
    output:
        TREE.sampled(RUN, METHOD, "{shard}"),
    log:
        f"{LOGS}/{{run}}/{{method}}/sample-{{shard}}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        results=lambda wildcards: RESULTS,
        budgets=lambda wildcards: budgets(wildcards.run, wildcards.method),
        made_of=lambda wildcards: made_of(
            wildcards.run, wildcards.method, "sample", stamps.each_sample(CONFIG), images_in(wildcards), FEATURES
        ),
    shell:
        "LOG={log:q} job sample --run {wildcards.run} --method {wildcards.method} "
        "--budgets {params.budgets:q} --states {input.states:q} --shard {wildcards.shard} --made-of {params.made_of:q} "
        "--folder {params.results:q} --out {output:q} > {log:q} 2>&1"


rule score:
    input:
        sampled=lambda wildcards: sampled(wildcards.run, wildcards.method),
        full=lambda wildcards: sampled(wildcards.run, "full"),
        references=[path if path in STATISTICS else ancient(path) for path in REFERENCES],
        lpips=lambda wildcards: weights_of(LPIPS) if LPIPS else [],
        calibration=compared_with,
    output:
        TREE.scores(RUN, METHOD),
    log:
        f"{LOGS}/{{run}}/{{method}}/score.log",
    conda:
        "../../environment.yml"
    params:
        shards=lambda wildcards: shards(wildcards.run, wildcards.method),
        full=lambda wildcards: shards(wildcards.run, "full"),
        metrics=canonical(CONFIG["metrics"], CONFIG["samples"]["blocks"], code("score")),
        lpips=lambda wildcards: sources.digest_of(LPIPS) if LPIPS else "",
        references=lambda wildcards: list(map(reference_digest, REFERENCES, VIEWS.values())),
    shell:
        "job score --run {wildcards.run} --reference {input.references:q} --shards {params.shards:q} "
        "--full {params.full:q} --out {output:q} > {log:q} 2>&1"


# Takes every core, so that nothing else runs while it measures. What it finds in its output it keeps, if it is made of the same.
rule latency:
    input:
        plugins=lambda wildcards: [file for name in methods_of(wildcards.run) for file in plugin_files_of(wildcards.run, name)],
        settings=lambda wildcards: [TREE.settings(wildcards.run, name) for name in methods_of(wildcards.run)],
        states=lambda wildcards: [file for name in methods_of(wildcards.run) for file in states_of(wildcards.run, name)],
        sampled=lambda wildcards: [TREE.sampled(wildcards.run, name, 0) for name in methods_of(wildcards.run)],
        weights=weights,
        decoder=decoder,
    output:
        update(TREE.latency(RUN)),
    log:
        f"{LOGS}/{{run}}/latency.log",
    priority: -1
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        results=lambda wildcards: RESULTS,
        made_of=lambda wildcards: [
            made_of(
                wildcards.run, name, "latency", CONFIG["latency"], [CONFIG["samples"][key] for key in ("first_seed", "labels")]
            )
            for name in methods_of(wildcards.run)
        ],
    shell:
        "LOG={log:q} job latency --run {wildcards.run} --states {input.states:q} --made-of {params.made_of:q} "
        "--folder {params.results:q} --out {output:q} > {log:q} 2>&1"
