rule sample:
    input:
        plugin=plugin_files,
        settings=TREE.settings(RUN, METHOD),
        states=states,
        weights=weights,
        decoder=decoder,
        extractor=weights_of(CONFIG["extractor"]),
    output:
        TREE.shard(RUN, METHOD, "{budget}", "{shard}"),
    log:
        f"{LOGS}/{{run}}/{{method}}/sample-{{budget}}-{{shard}}.log",
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        identity=identity("sample"),
        samples=canonical(CONFIG["samples"]),
        extractor=EXTRACTOR,
        autoencoder=coder,
    shell:
        "LOG={log:q} job sample --run {wildcards.run} --method {wildcards.method} "
        "--budget {wildcards.budget} --settings {input.settings:q} --states {input.states:q} --shard {wildcards.shard} "
        "--out {output:q} > {log:q} 2>&1"


rule score:
    input:
        shards=lambda wildcards: shards(wildcards.run, wildcards.method),
        full=lambda wildcards: shards(wildcards.run, "full"),
        reference=ancient(REFERENCE) if REFERENCE == SOURCE else REFERENCE,
        lpips=lambda wildcards: weights_of(LPIPS) if LPIPS else [],
    output:
        TREE.scores(RUN, METHOD),
    log:
        f"{LOGS}/{{run}}/{{method}}/score.log",
    conda:
        "../../environment.yml"
    params:
        metrics=canonical(CONFIG["metrics"], CONFIG["samples"]["blocks"], code("score")),
        lpips=lambda wildcards: sources.digest_of(LPIPS) if LPIPS else "",
        reference=sources.digest_of(sources.reference(CONFIG) | {"weights": SOURCE}) if REFERENCE == SOURCE else SOURCE,
    shell:
        "job score --run {wildcards.run} --reference {input.reference:q} --shards {input.shards:q} "
        "--full {input.full:q} --out {output:q} > {log:q} 2>&1"


# Takes every core, so that nothing else runs while it measures.
rule latency:
    input:
        plugin=plugin_files,
        settings=TREE.settings(RUN, METHOD),
        full=TREE.settings(RUN, "full"),
        states=states,
        shards=lambda wildcards: [TREE.shard(*wildcards[:2], b, 0) for b in budgets(wildcards.run, wildcards.method)],
        weights=weights,
        decoder=decoder,
    output:
        TREE.latency(RUN, METHOD),
    log:
        f"{LOGS}/{{run}}/{{method}}/latency.log",
    priority: -1
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        identity=identity("latency"),
        latency=canonical(CONFIG["latency"]),
        autoencoder=coder,
        budgets=lambda wildcards: budgets(wildcards.run, wildcards.method),
    shell:
        "LOG={log:q} job latency --run {wildcards.run} --method {wildcards.method} "
        "--budgets {params.budgets:q} --settings {input.settings:q} --full-settings {input.full:q} --states {input.states:q} "
        "--shards {input.shards:q} --out {output:q} > {log:q} 2>&1"
