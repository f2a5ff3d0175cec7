# Numbers that papers print, beside the measured ones, where the config has a backbone that a paper has.
PUBLISHED = "resources/published/l2c.csv"
VERDICTS = [f"{RESULTS}/verdicts.{e}" for e in ("csv", "md")] if verdicts.of_config(verdicts.read(), CONFIG) else []


rule verdicts:
    input:
        results=f"{RESULTS}/results.csv",
        published=PUBLISHED,
    output:
        csv=f"{RESULTS}/verdicts.csv",
        markdown=report(
            f"{RESULTS}/verdicts.md",
            caption="../report/verdicts.rst",
            category="Tables",
            labels={"table": "verdicts", "format": "md"},
        ),
    log:
        f"logs/{CONFIG['name']}/verdicts.log",
    localrule: True
    conda:
        "../../environment.yml"
    params:
        config=CONFIGFILE,
        judging=store.digest([PACKAGE / "verdicts.py"]),
    shell:
        "$PYTHON $SCRIPTS/verdicts.py --config {params.config} --results {input.results} --published {input.published} "
        "--csv {output.csv} --markdown {output.markdown} > {log} 2>&1"


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
        "$PYTHON $SCRIPTS/published_macs.py --published {input} --out {output} > {log} 2>&1"
