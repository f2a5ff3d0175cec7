# The embedded models. Their results are committed under resources/weights; these rules make them anew in results/models.
TRAINABLE = {name: entry for name, entry in CONFIG["backbones"].items() if "train" in entry}


rule train:
    input:
        expand("results/models/{backbone}.safetensors", backbone=TRAINABLE),
        [f"results/models/{CONFIG['extractor']['name']}.safetensors"] if "train" in CONFIG["extractor"] else [],
    localrule: True


rule train_backbone:
    input:
        **TRAINING,
        init=lambda wildcards: TRAINABLE[wildcards.backbone]["train"].get("init", []),
    output:
        weights="results/models/{backbone}.safetensors",
        curve="results/models/{backbone}.csv",
    log:
        "logs/train-{backbone}.log",
    wildcard_constraints:
        backbone="|".join(TRAINABLE) or "none",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        settings=lambda wildcards: TRAINABLE[wildcards.backbone],
    shell:
        "job train_backbone --backbone {wildcards.backbone} "
        "--images {input.images:q} --labels {input.labels:q} --weights {output.weights:q} --curve {output.curve:q} 2>&1 | tee {log:q}"


rule train_extractor:
    input:
        **TRAINING,
        test_images="data/t10k-images-idx3-ubyte",
        test_labels="data/t10k-labels-idx1-ubyte",
    output:
        weights=f"results/models/{CONFIG['extractor']['name']}.safetensors",
        curve=f"results/models/{CONFIG['extractor']['name']}.csv",
    log:
        f"logs/train-{CONFIG['extractor']['name']}.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        settings=CONFIG["extractor"].get("train"),
    shell:
        "job train_extractor --images {input.images:q} --labels {input.labels:q} "
        "--test-images {input.test_images:q} --test-labels {input.test_labels:q} --weights {output.weights:q} "
        "--curve {output.curve:q} 2>&1 | tee {log:q}"
