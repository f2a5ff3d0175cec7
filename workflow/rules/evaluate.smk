# `snakemake evaluate --config samples=PATH` scores anybody's images, as docs/images.md says, against the config's reference.
if EVALUATED and workflow.is_main_process:  # again by the job itself
    try:
        images.open_images(EVALUATED)
        atomic.check_age(EVALUATED)
    except ValueError as error:
        raise WorkflowError(f"samples: {error}")


# The images are no input, since Snakemake would take braces in their path for wildcards; without an output it always runs.
rule evaluate:
    input:
        references=REFERENCES if EVALUATED else [],
        extractors=EXTRACTOR_FILES if EVALUATED else [],
    log:
        f"{LOGS}/evaluate.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        samples=lambda wildcards: [EVALUATED] if EVALUATED else [],
        references=REFERENCES,
        order=ORDER,
        results=RESULTS,
    shell:
        "job evaluate --samples {params.samples:q} --reference {params.references:q} "
        "--order {params.order} --json {params.results:q}/scores.json --csv {params.results:q}/scores.csv 2>&1 | tee {log:q}"
