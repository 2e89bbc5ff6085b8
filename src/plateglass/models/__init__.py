"""Networks: nuclei, the classifier behind DCMIX, and how they are trained; no plates, no files of ours."""
