# The microscope's files to OME-Zarr; demo plates are rendered first.
rule demo:
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.demo.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.demo.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        run=command("demo"),
        why=why("demo"),
    message:
        "{wildcards.plate} demo: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} > {log:q} 2>&1"


rule ingest:
    input:
        ancient(after("demo")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.ingest.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.ingest.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 16
    resources:
        mem_mb=memory(job=1000, worker=300),
        runtime=60,
    params:
        run=command("ingest"),
        why=why("ingest"),
    message:
        "{wildcards.plate} ingest: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
