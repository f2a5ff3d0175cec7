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
    params:
        config=CONFIGFILE,
    shell:
        "$PYTHON $SCRIPTS/fetch.py --config {params.config} --name {wildcards.file} --out {output} > {log} 2>&1"


# A file of the config that has a `url` and is not there yet. What is there is only verified, by the config's check.
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
    params:
        config=CONFIGFILE,
    shell:
        "$PYTHON $SCRIPTS/download.py --config {params.config} --path {wildcards.path:q} 2>&1 | tee {log:q}"


rule calibration:
    input:
        images="data/train-images-idx3-ubyte",
        labels="data/train-labels-idx1-ubyte",
    output:
        "results/data/{name}-{count}.npz",
    log:
        "logs/calibration-{name}-{count}.log",
    wildcard_constraints:
        count=r"\d+",
    conda:
        "../../environment.yml"
    shell:
        "$PYTHON $SCRIPTS/calibration.py --images {input.images} --labels {input.labels} "
        "--count {wildcards.count} --out {output} > {log} 2>&1"


rule reference:
    input:
        images="data/t10k-images-idx3-ubyte",
        labels="data/t10k-labels-idx1-ubyte",
    output:
        "results/data/{name}.safetensors",
    log:
        "logs/reference-{name}.log",
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        extractor=EXTRACTORS,
    shell:
        "$PYTHON $SCRIPTS/reference.py --config {params.config} --images {input.images} --labels {input.labels} "
        "--out {output} > {log} 2>&1"
