import os

# Thin by intent: an include would not set the default target, so the workflow is used as a module.
if not workflow.config_settings.configfiles:

    configfile: os.path.join(workflow.basedir, "config/config.yaml")


module cachebench:
    snakefile:
        "workflow/Snakefile"
    config:
        config


use rule * from cachebench
