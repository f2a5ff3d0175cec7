# Settings of every method on every run, and nothing that is made of them: what resources/settings/speed is a copy of.
rule speed_settings:
    input:
        results_of(TREE.settings),
    localrule: True


# Times them on this machine: `snakemake speed --cores all --configfile config/speed.yaml`.
rule speed:
    input:
        settings=results_of(TREE.settings),
        states=[TREE.fit(run, name, fit) for (run, name), fits in FITS.items() for fit in fits],
    output:
        TREE.file("speed.csv"),
    log:
        f"{LOGS}/speed.log",
    conda:
        "../../environment.yml"
    threads: workflow.cores
    resources:
        gpu=GPU,
    params:
        results=lambda wildcards: RESULTS,
        said=canonical(*(CONFIG.get(key) for key in ("runs", "backbones", "speed", "methods"))),
        code=lambda wildcards: closure.digest([SCRIPTS / "speed.py", PACKAGE / "engine", *loader.folders()]),
    shell:
        "job speed --folder {params.results:q} --out {output:q} 2>&1 | tee {log:q}"
