rule fetch:
    output:
        "data/{file}",
    log:
        "logs/fetch-{file}.log",
    wildcard_constraints:
        file="|".join(f["name"] for f in CONFIG["data"]["files"]) or "none",
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "job fetch --name {wildcards.file} --out {output:q} > {log:q} 2>&1"


# A file of the config that has a `url` or `hub` and is not there yet. What is there is only verified, by the config's check.
rule download:
    output:
        "{path}",
    log:
        "logs/download/{path}.log",
    wildcard_constraints:
        path="|".join(map(re.escape, DOWNLOADS)) or "none",
    retries: 3
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "job download --path {wildcards.path:q} 2>&1 | tee {log:q}"


if IMAGES:

    rule encode:
        input:
            images=ancient(atomic.placed(CONFIG["data"]["images"])),
            weights=weights_of(CONFIG["backbones"][ENCODED]["autoencoder"]),
        output:
            CONFIG["calibration"],
        log:
            f"{LOGS}/encode.log",
        conda:
            "../../environment.yml"
        threads: workflow.cores
        resources:
            gpu=GPU,
        params:
            backbone=ENCODED,
            encoding=ENCODING,
        shell:
            "job encode --backbone {params.backbone:q} --workers {threads} --out {output:q} > {log:q} 2>&1"


rule calibration:
    input:
        **TRAINING,
    output:
        "results/data/{name}-{images}.npz",
    log:
        "logs/calibration-{name}-{images}.log",
    wildcard_constraints:
        images=r"\d+",
    conda:
        "../../environment.yml"
    shell:
        "job calibration --images {input.images:q} --labels {input.labels:q} "
        "--count {wildcards.images} --out {output:q} > {log:q} 2>&1"


# Statistics of the real images that a `reference` of the config names: a folder, an npz file or a batch of ADM's.
rule reference:
    input:
        list(STATISTICS),
    localrule: True


rule statistics:
    input:
        # those that are there count by their content
        images=lambda wildcards: [path for path in made_from(wildcards)[:1] if not os.path.exists(path)],
        extractor=lambda wildcards: weights_of(made_from(wildcards)[1]["extractor"]),
    output:
        STATISTICS_FILE,
    log:
        "logs/reference-{made}.safetensors.log",
    wildcard_constraints:
        made="|".join(re.escape(Path(path).stem) for path in STATISTICS) or "none",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        images=lambda wildcards: made_from(wildcards)[0],
        content=content,
        extractor=lambda wildcards: extractor_of(made_from(wildcards)[1]["extractor"]),
        all_pairs=CONFIG["metrics"]["all_pairs"],
    shell:
        "job reference --images {params.images:q} --out {output:q} 2>&1 | tee {log:q}"
