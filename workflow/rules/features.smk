# One forward pass a cell, and classical features.
rule features:
    input:
        ancient(after("segment", "train")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.features.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.features.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 16
    resources:
        mem_mb=memory(job=2000, worker=700),
        runtime=240,
    params:
        run=command("features"),
        why=why("features"),
    message:
        "{wildcards.plate} features: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
