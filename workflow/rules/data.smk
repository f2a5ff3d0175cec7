rule fetch:
    output:
        "data/{file}",
    params:
        config=CONFIGFILE,
    wildcard_constraints:
        file="|".join(f["name"] for f in CONFIG["data"]["files"]) or "none",
    log:
        "logs/fetch-{file}.log",
    conda:
        "../../environment.yml"
    localrule: True
    retries: 3
    shell:
        "$PYTHON $SCRIPTS/fetch.py --config {params.config} --name {wildcards.file} --out {output} > {log} 2>&1"


rule calibration:
    input:
        images="data/train-images-idx3-ubyte",
        labels="data/train-labels-idx1-ubyte",
    output:
        "results/data/{name}-{count}.npz",
    wildcard_constraints:
        count=r"\d+",
    log:
        "logs/calibration-{name}-{count}.log",
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
    params:
        config=CONFIGFILE,
        metrics=METRICS,
    log:
        "logs/reference-{name}.log",
    conda:
        "../../environment.yml"
    shell:
        "$PYTHON $SCRIPTS/reference.py --config {params.config} --images {input.images} --labels {input.labels} "
        "--out {output} > {log} 2>&1"
