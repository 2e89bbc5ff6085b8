# plateglass: from plates to profiles that can be looked behind. See README.md.
from snakemake.utils import min_version

min_version("9.0")


configfile: "config/config.yaml"


include: "workflow/rules/plan.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/attribute.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/report.smk"


localrules:
    all,
    tables,
    selected,
    plate_report,
    screen_report,
    refused,


# Each missing marker is a target: what must run is in the markers' names, edges give order alone.
rule all:
    default_target: True
    input:
        PLATEGLASS.markers,
        PLATEGLASS.shown,


onstart:
    PLATEGLASS.hold()


onsuccess:
    PLATEGLASS.say_where_to_look()


onerror:
    PLATEGLASS.say_what_failed()
