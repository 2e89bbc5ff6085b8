# Tables. The markers' jobs write them; thin rules name them, so that they can be asked for by path.
rule aggregate:
    input:
        ancient(after("attribute", "features", "segment", "train")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.aggregate.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.aggregate.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        run=command("aggregate"),
        why=why("aggregate"),
    message:
        "{wildcards.plate} aggregate: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"


rule aggregate_screen:
    input:
        ancient(after("aggregate", "screen")),
        ancient(tables_of("aggregate", whole=True)),
    output:
        f"{RESULTS}/.plateglass/done/screen.aggregate.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/screen.aggregate.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=60,
    params:
        run=command("aggregate"),
        why=why("aggregate", "screen"),
    message:
        "screen aggregate: {params.why}"
    shell:
        "{params.run} screen --key {wildcards.key} --threads {threads} > {log:q} 2>&1"


rule tables:
    input:
        ancient(after("aggregate")),
    output:
        [f"{RESULTS}/{{plate}}/{table}.parquet" for table in PLATEGLASS.table_names],
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.tables.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        restore=RESTORE,
        kept=lambda wildcards: f"{RESULTS}/.plateglass/tables/{wildcards.plate}",
        said=put_back("aggregate"),
    message:
        "{params.said}"
    shell:
        "{params.restore} {params.kept:q} {output:q} 2> {log:q}"


rule selected:
    input:
        ancient(after("aggregate", "screen", itself=True)),
    output:
        f"{RESULTS}/screen/wells_selected.parquet",
    log:
        f"{RESULTS}/.plateglass/logs/screen.tables.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        restore=RESTORE,
        kept=f"{RESULTS}/.plateglass/tables/screen",
        said=put_back("aggregate", "screen"),
    message:
        "{params.said}"
    shell:
        "{params.restore} {params.kept:q} {output:q} 2> {log:q}"
