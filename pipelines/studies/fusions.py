"""How the ways to fuse compare, and what each keeps where an image or a record is missing: simulated cohorts.

    cargo build --release --workspace --examples && python3 pipelines/studies/fusions.py [--seeds 8311-8315]

Each seed is a cohort on which a model with each fusion is trained, with a modality hidden at times; then a share of the images, or of the
records, is taken away from the test examples that have both. A line of JSON a cohort and fusion goes to runs/fusions/fusions.jsonl;
those that are there already are not made again. Prints AUROCs, mean and standard deviation over the seeds, the ceiling (the generator's
own posterior) and the better one of the models of one modality, to which the same happened.
"""

import json
import shutil
import subprocess
from statistics import mean

from study import ONE_THREAD, Study, spread

FUSIONS = ["film", "gated", "concat", "late", "late-weighted", "low-rank", "attention", "bottleneck", "experts", "shared-private"]
study = Study("fusions", __doc__, "8311-8315", 16000, examples=["missingness"])


def measure(keys):
    seed = keys[0]["seed"]
    at = study.cohort(seed, "")
    # Models of one modality have nothing to fuse: those of one run serve all.
    study.evaluate(at, seed, "model.fusion=film", run=at / "first")
    for key in keys:
        run = at / ("first" if key["fusion"] == "film" else "run")
        if key["fusion"] != "film":
            study.evaluate(at, seed, f"model.fusion={key['fusion']}", "training.singles=false", run=run)
        command = [study.example("missingness"), run, at / "data", "malignant", at / "first"]
        told = subprocess.run(command, check=True, capture_output=True, text=True, env=ONE_THREAD)
        yield key, json.loads(told.stdout)
    shutil.rmtree(at)


done = study.lines([[{"seed": seed, "fusion": fusion} for fusion in FUSIONS] for seed in study.seeds], measure)
rates = [point["rate"] for point in done[0]["missing_image"]] if done else []
of = ["complete", *(f"{what} {rate:.0%}" for what in ("image", "record") for rate in rates)]
print("| fusion | ceiling, share | " + " | ".join(of) + " |")
print("|---|--:|" + "--:|" * len(of))
for fusion in FUSIONS:
    lines = [line for line in done if line["fusion"] == fusion]
    if not lines:
        continue
    points = lambda line: [line["complete"], *line["missing_image"], *line["missing_record"]]
    share = spread([line["complete"]["joint"] / line["ceiling"] for line in lines])
    cells = []
    for k in range(len(of)):
        joint = [points(line)[k]["joint"] for line in lines]
        single = mean(max(points(line)[k]["image"], points(line)[k]["record"]) for line in lines)
        cells.append(f"{spread(joint)} ({mean(joint) - single:+.4f})")
    print(f"| {fusion} | {share} | " + " | ".join(cells) + " |")
print("In brackets: against the better model of one modality, by its own AUROC on each cohort.")
