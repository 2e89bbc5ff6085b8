# The microscope's files to OME-Zarr; demo plates are rendered first.
rule demo:
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.demo.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.demo.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        why=why("demo"),
    message:
        "{wildcards.plate} demo: {params.why}"
    shell:
        "{RUN} demo {wildcards.plate} {SETTINGS} --key {wildcards.key} > {log:q} 2>&1"


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
        mem_mb=2000,
        runtime=60,
    params:
        why=why("ingest"),
    message:
        "{wildcards.plate} ingest: {params.why}"
    shell:
        "{RUN} ingest {wildcards.plate} {SETTINGS} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
