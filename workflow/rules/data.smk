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
        "$PYTHON $SCRIPTS/fetch.py --name {wildcards.file} --out {output} > {log} 2>&1"


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
        "$PYTHON $SCRIPTS/download.py --path {wildcards.path:q} 2>&1 | tee {log:q}"


if IMAGES:

    rule encode:
        input:
            images=ancient(atomic.placed(CONFIG["data"]["images"])),
            weights=weights_of(CONFIG["backbones"][ENCODED]["autoencoder"]),
        output:
            CONFIG["calibration"],
        log:
            f"{LOGS}/encode.log",
        benchmark:
            f"{RESULTS}/benchmarks/encode.tsv"
        conda:
            "../../environment.yml"
        threads: workflow.cores
        resources:
            gpu=GPU,
        params:
            backbone=ENCODED,
            encoding=ENCODING,
        shell:
            "$PYTHON $SCRIPTS/encode.py --backbone {params.backbone} --workers {threads} " "--out {output} > {log} 2>&1"


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
        "$PYTHON $SCRIPTS/calibration.py --images {input.images} --labels {input.labels} "
        "--count {wildcards.images} --out {output} > {log} 2>&1"


# Statistics of the real images that the config's `reference` names: a folder, an npz file or a batch of ADM's.
if REFERENCE != SOURCE:

    rule reference:
        input:
            images=SOURCE,
            extractor=weights_of(CONFIG["extractor"]),
        output:
            REFERENCE,
        log:
            f"logs/reference-{os.path.basename(REFERENCE)}.log",
        benchmark:
            f"{RESULTS}/benchmarks/reference.tsv"
        conda:
            "../../environment.yml"
        threads: workflow.cores
        resources:
            gpu=GPU,
        params:
            extractor=EXTRACTOR,
            all_pairs=CONFIG["metrics"]["all_pairs"],
        shell:
            "$PYTHON $SCRIPTS/reference.py --images {input.images:q} --out {output} " "2>&1 | tee {log:q}"
