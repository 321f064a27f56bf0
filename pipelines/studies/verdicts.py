"""How often the verdict is right, over many simulated cohorts: where both modalities matter it should say that joining them gains,
and where one is pure noise that there is no evidence of it.

    python3 pipelines/studies/verdicts.py [--seeds 9601-9700]

Each seed is a cohort of 1,800 patients in which both matter, and one in which the images (odd seeds) or the records (even seeds) have
nothing to do with the label; a small joint model and those of one modality are trained on each, and compared on 30 % of the patients.
A line of JSON a cohort goes to runs/verdicts/verdicts.jsonl; those that are there already are not made again. Prints how often each
verdict was given.
"""

import json
import shutil
import statistics
from collections import Counter

from study import Study

study = Study("verdicts", __doc__, "9601-9700", 1800)


def verdict(keys):
    for key in keys:
        seed, noise = key["seed"], key["noise"]
        at = study.cohort(seed, f"-{noise or 'none'}", *(["--noise", noise] if noise else []))
        task = study.evaluate(at, seed)["malignant"]
        auroc = {variant: task["variants"][variant]["auroc"]["value"] for variant in ("joint", "image", "record")}
        yield key, {"n": task["n"], "auroc": auroc, "gain": {k: task["gain"][k] for k in ("over", "difference", "p", "verdict")}}
        shutil.rmtree(at)


# Those with noise first: where they go wrong, the others need not be waited for.
jobs = [[{"seed": seed, "noise": "image" if seed % 2 else "record"}] for seed in study.seeds]
jobs += [[{"seed": seed, "noise": ""}] for seed in study.seeds]
done = study.lines(jobs, verdict)
for noise in sorted({line["noise"] for line in done}):
    lines = [line for line in done if line["noise"] == noise]
    mean = {variant: statistics.mean(line["auroc"][variant] for line in lines) for variant in ("joint", "image", "record")}
    verdicts = Counter(line["gain"]["verdict"] for line in lines)
    print(json.dumps({"noise": noise or "none", "cohorts": len(lines), "verdicts": verdicts, "mean_auroc": mean}))
