# The plan is made once, in the main process: jobs parse this file again but only need their wildcards.
from plateglass.workflow import Workflow

PLATEGLASS = Workflow(workflow, config)
RESULTS = PLATEGLASS.results
RESTORE = PLATEGLASS.restore
command, after, tables_of, memory, why, put_back = (
    PLATEGLASS.command,
    PLATEGLASS.after,
    PLATEGLASS.tables,
    PLATEGLASS.memory,
    PLATEGLASS.why,
    PLATEGLASS.put_back,
)


wildcard_constraints:
    plate=r"(?!screen[./])[A-Za-z0-9_-]+",
    key=r"[0-9a-f]+\.[0-9]+",
    why=r"[0-9a-f]+",


# Only ever asked for where a plate's folder cannot be trusted: the others run, the exit code is not 0.
rule refused:
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.refused.{{why}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.refused.{{why}}.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        why=PLATEGLASS.why_refused,
    message:
        "{wildcards.plate}: refused"
    shell:
        "printf '%s\\n' {params.why:q} > {log:q}; exit 1"
