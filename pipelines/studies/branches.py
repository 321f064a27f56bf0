"""What modalities learn from each other where few labels are known: simulated cohorts of 4,000 patients, of whom 2,000 train.

    python3 pipelines/studies/branches.py [--seeds 8201-8205]

Of each cohort, whose seed is new, models are trained with so many of the training patients' labels: 300 (a share of 0.15) with branches
that teach each other; 10 % without more, with image towers that learnt from all images before, and with branches as well; 30 % without more. A line of JSON a cohort and setting goes to
runs/branches/branches.jsonl; those that are there already are not made again. Prints, for each setting, AUROCs, and for the branches of
the joint model by how much each is better than the model that was trained on its modality alone (DeLong).
"""

import shutil

from study import Study, spread

BRANCHES = "training.branches={ own = 0.5, joint = 1.0 }"
UNLABELLED = "training.unlabelled=40"
SETTINGS = {
    "300 labelled, branches": ["task.0.labelled=0.15", BRANCHES],
    "10 % labelled": ["task.0.labelled=0.1"],
    "10 % labelled, images without labels before": ["task.0.labelled=0.1", UNLABELLED],
    "10 % labelled, images without labels before, branches": ["task.0.labelled=0.1", UNLABELLED, BRANCHES],
    "30 % labelled": ["task.0.labelled=0.3"],
}
study = Study("branches", __doc__, "8201-8205", 4000)


def measure(keys):
    seed = keys[0]["seed"]
    at = study.cohort(seed, "")
    for key in keys:
        task = study.evaluate(at, seed, *SETTINGS[key["setting"]])["malignant"]
        auroc = {variant: measured["auroc"]["value"] for variant, measured in task["variants"].items()}
        branches = {line["of"]: {"difference": line["auroc"]["value"], "p": line["p"]} for line in task["branches"]}
        yield key, {"n": task["n"], "auroc": auroc, "branches": branches, "gain": task["gain"]["verdict"]}
    shutil.rmtree(at)


done = study.lines([[{"seed": seed, "setting": name} for name in SETTINGS] for seed in study.seeds], measure)
for name in SETTINGS:
    lines = [line for line in done if line["setting"] == name]
    if not lines:
        continue
    print(f"{name}: {len(lines)} cohorts of {lines[0]['n']} test examples")
    for variant in lines[0]["auroc"]:
        print(f"  {variant:16} AUROC {spread([line['auroc'][variant] for line in lines])}")
    for branch in lines[0]["branches"]:
        of = [line["branches"][branch] for line in lines]
        better = sum(one["p"] is not None and one["p"] < 0.05 and one["difference"] > 0 for one in of)
        print(f"  {branch:16} against its modality alone {spread([one['difference'] for one in of])}; p < 0.05 in {better} of {len(of)}")
