# `snakemake evaluate --config samples=PATH` scores anybody's images, a folder or an npz file, against the config's reference.
from cachebench.files import images

if EVALUATED:
    try:
        images.open_images(EVALUATED)
    except ValueError as error:
        raise WorkflowError(f"samples: {error}")


rule evaluate:
    input:
        lambda wildcards: [ancient(EVALUATED), REFERENCE, weights_of(CONFIG["extractor"])] if EVALUATED else [],
    log:
        f"{LOGS}/evaluate.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        samples=lambda wildcards: [EVALUATED] if EVALUATED else [],
        reference=REFERENCE,
        results=RESULTS,
    shell:
        "job evaluate --samples {params.samples:q} --reference {params.reference:q} "
        "--json {params.results:q}/scores.json --csv {params.results:q}/scores.csv 2>&1 | tee {log:q}"
