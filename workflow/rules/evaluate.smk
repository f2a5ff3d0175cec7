# `snakemake evaluate --config samples=PATH` scores anybody's images, a folder or an npz file, against the config's reference.
from cachebench.files import images

if EVALUATED:
    try:
        images.open_images(EVALUATED)
        atomic.check_age(EVALUATED)
    except ValueError as error:
        raise WorkflowError(f"samples: {error}")


rule evaluate:
    input:
        [ancient(EVALUATED), REFERENCE, weights_of(CONFIG["extractor"])] if EVALUATED else [],
    log:
        "logs/evaluate.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        samples=shlex.quote(EVALUATED),  # :q leaves nothing of an empty one
        reference=REFERENCE,
        out=f"{RESULTS}/{os.path.splitext(os.path.basename(os.path.normpath(EVALUATED)))[0]}",
    shell:
        "$PYTHON $SCRIPTS/evaluate.py --samples {params.samples} --reference {params.reference:q} "
        "--json {params.out:q}.json --csv {params.out:q}.csv 2>&1 | tee {log}"
