# One model a screen, from the training wells. Its key holds those wells alone.
rule train:
    input:
        ancient(after("segment", "screen")),
    output:
        f"{RESULTS}/.plateglass/done/screen.train.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/screen.train.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 16
    resources:
        mem_mb=memory(job=2000, worker=800),
        runtime=480,
    params:
        run=command("train"),
        why=why("train", "screen"),
    message:
        "screen train: {params.why}"
    shell:
        "{params.run} screen --key {wildcards.key} --threads {threads} > {log:q} 2>&1"
