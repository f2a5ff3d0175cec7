# `snakemake evaluate --config samples=PATH` scores anybody's images, a folder or an npz file, against the config's reference.
from pathlib import Path

from cachebench import images

if EVALUATED:
    try:
        images.open_images(EVALUATED)
    except ValueError as error:
        raise WorkflowError(f"samples: {error}")

    rule evaluate:
        input:
            samples=ancient(EVALUATED),
            reference=ancient(REFERENCE) if REFERENCE == SOURCE else REFERENCE,
            extractor=weights_of(CONFIG["extractor"]),
        log:
            "logs/evaluate.log",
        conda:
            "../../environment.yml"
        threads: workflow.cores
        resources:
            gpu=GPU,
        params:
            config=CONFIGFILE,
            out=f"{RESULTS}/{Path(EVALUATED).stem}",
        shell:
            "$PYTHON $SCRIPTS/evaluate.py --config {params.config} --samples {input.samples:q} --reference {input.reference:q} "
            "--json {params.out:q}.json --csv {params.out:q}.csv --threads {threads} 2>&1 | tee {log}"

else:

    rule evaluate:
        localrule: True
        shell:
            "echo 'evaluate: say which images: --config samples=PATH, a folder or an npz file with arr_0' >&2; exit 1"
