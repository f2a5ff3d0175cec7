rule sample:
    input:
        plugin=plugin_file,
        settings=f"{RESULTS}/{{run}}/{{method}}/settings.json",
        states=states,
        weights=weights,
        decoder=decoder,
        extractor=weights_of(CONFIG["extractor"]),
    output:
        f"{RESULTS}/{{run}}/{{method}}/{{budget}}/shard-{{shard}}.safetensors",
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/sample-{{budget}}-{{shard}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-sample-{{budget}}-{{shard}}.tsv"
    conda:
        "../../environment.yml"
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        identity=identity,
        samples=canonical(CONFIG["samples"]),
        extractor=EXTRACTOR,
        autoencoder=coder,
    shell:
        "$PYTHON $SCRIPTS/sample.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--budget {wildcards.budget} --settings {input.settings} --states {input.states:q} --shard {wildcards.shard} "
        "--threads {threads} --out {output} > {log} 2>&1"


rule score:
    input:
        shards=lambda wildcards: shards(wildcards.run, wildcards.method),
        full=lambda wildcards: shards(wildcards.run, "full"),
        reference=ancient(REFERENCE) if REFERENCE == SOURCE else REFERENCE,
    output:
        f"{RESULTS}/{{run}}/{{method}}/scores.json",
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/score.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-score.tsv"
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        metrics=canonical(CONFIG["metrics"], CONFIG["samples"]["blocks"], METRICS),
        reference=digest_of(settings.reference(CONFIG) | {"weights": SOURCE}) if REFERENCE == SOURCE else SOURCE,
    shell:
        "$PYTHON $SCRIPTS/score.py --config {params.config} --reference {input.reference:q} --shards {input.shards} "
        "--full {input.full} --out {output} > {log} 2>&1"


# Takes every core, so that nothing else runs while it measures.
rule latency:
    input:
        plugin=plugin_file,
        settings=f"{RESULTS}/{{run}}/{{method}}/settings.json",
        full=f"{RESULTS}/{{run}}/full/settings.json",
        states=states,
        weights=weights,
        decoder=decoder,
    output:
        f"{RESULTS}/{{run}}/{{method}}/latency.json",
    log:
        f"logs/{CONFIG['name']}/{{run}}/{{method}}/latency.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{run}}-{{method}}-latency.tsv"
    priority: -1
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        config=CONFIGFILE,
        identity=identity,
        latency=canonical(CONFIG["latency"]),
        autoencoder=coder,
        budgets=lambda wildcards: budgets(wildcards.run, wildcards.method),
    shell:
        "$PYTHON $SCRIPTS/latency.py --config {params.config} --run {wildcards.run} --method {wildcards.method} "
        "--budgets {params.budgets} --settings {input.settings} --full-settings {input.full} --states {input.states:q} "
        "--threads {threads} --out {output} > {log} 2>&1"
