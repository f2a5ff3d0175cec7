# Numbers that papers print, beside the measured ones, where the config has a backbone that a paper has.
PUBLISHED = [atomic.placed(f"resources/published/{path.name}") for path in published.files()]
PRINTED = [f"{RESULTS}/published.{e}" for e in ("csv", "md")] if published.of_config(published.read(), CONFIG) else []


rule published:
    input:
        results=TREE.file("results.csv"),
        published=PUBLISHED,
    output:
        csv=TREE.file("published.csv"),
        markdown=report(
            TREE.file("published.md"),
            caption="../report/published.rst",
            category="Tables",
            labels={"table": "published", "format": "md"},
        ),
    log:
        f"{LOGS}/published.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        code=code("published"),
    shell:
        "job published --results {input.results:q} --published {input.published:q} "
        "--csv {output.csv:q} --markdown {output.markdown:q} > {log:q} 2>&1"


rule published_macs:
    input:
        PUBLISHED,
    output:
        "resources/published/macs.md",
    log:
        "logs/published-macs.log",
    localrule: True
    conda:
        "../../environment.yml"
    shell:
        "job published_macs --published {input:q} --out {output:q} > {log:q} 2>&1"
