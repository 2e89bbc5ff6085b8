# Which pixels decide, for some cells of each well.
rule attribute:
    input:
        ancient(after("features", "segment", "train")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.attribute.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.attribute.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 16
    resources:
        mem_mb=memory(job=2000, worker=600),
        runtime=240,
    params:
        run=command("attribute"),
        why=why("attribute"),
    message:
        "{wildcards.plate} attribute: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
