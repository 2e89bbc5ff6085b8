# Nuclei and cells, as labels in the plate's store.
rule segment:
    input:
        ancient(after("ingest")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.segment.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.segment.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 16
    resources:
        mem_mb=memory(job=2000, worker=1300),
        runtime=240,
    params:
        run=command("segment"),
        why=why("segment"),
    message:
        "{wildcards.plate} segment: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
