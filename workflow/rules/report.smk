# What people read.
rule report:
    input:
        ancient(after("aggregate", "attribute", "features", "segment", "train")),
        ancient(tables_of("report")),
    output:
        f"{RESULTS}/.plateglass/done/{{plate}}.report.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.report.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        run=command("report"),
        why=why("report"),
    message:
        "{wildcards.plate} report: {params.why}"
    shell:
        "{params.run} {wildcards.plate} --key {wildcards.key} --threads {threads} > {log:q} 2>&1"


rule report_screen:
    input:
        ancient(after("report", "screen")),
        ancient(tables_of("report", whole=True)),
    output:
        f"{RESULTS}/.plateglass/done/screen.report.{{key}}",
    log:
        f"{RESULTS}/.plateglass/logs/screen.report.{{key}}.log",
    conda:
        "../../envs/plateglass.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        run=command("report"),
        why=why("report", "screen"),
    message:
        "screen report: {params.why}"
    shell:
        "{params.run} screen --key {wildcards.key} --threads {threads} > {log:q} 2>&1"


rule plate_report:
    input:
        ancient(after("report")),
    output:
        report(
            f"{RESULTS}/{{plate}}/report.html",
            caption="../report/plate_report.rst",
            category="Reports",
        ),
    log:
        f"{RESULTS}/.plateglass/logs/{{plate}}.shown.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        restore=RESTORE,
        kept=lambda wildcards: f"{RESULTS}/.plateglass/tables/{wildcards.plate}",
        said=put_back("report"),
    message:
        "{params.said}"
    shell:
        "{params.restore} {params.kept:q} {output:q} 2> {log:q}"


rule screen_report:
    input:
        ancient(after("report", "screen", itself=True)),
    output:
        report(
            f"{RESULTS}/screen/report.html",
            caption="../report/screen_report.rst",
            category="Reports",
        ),
    log:
        f"{RESULTS}/.plateglass/logs/screen.shown.log",
    conda:
        "../../envs/plateglass.yaml"
    params:
        restore=RESTORE,
        kept=f"{RESULTS}/.plateglass/tables/screen",
        said=put_back("report", "screen"),
    message:
        "{params.said}"
    shell:
        "{params.restore} {params.kept:q} {output:q} 2> {log:q}"
