"""What modalities learn from each other where few labels are known: simulated cohorts of 8,000 patients, of whom 4,000 train.

    python3 pipelines/studies/branches.py [--seeds 8201-8205]

Of each cohort, whose seed is new, models are trained with so many of the training patients' labels: 300, and 10 %, with image towers that
learnt from all images before and branches that teach each other, also by patients without a label; 300 without the branches, three times
as often through the examples; and without any of this, 10 % and 30 %, up to twice as often. A line of JSON a cohort and setting goes to
runs/branches/branches.jsonl; those that are there already are not made again. Prints, for each setting, AUROCs, and for the branches of
the joint model by how much each is better than the model that was trained on its modality alone (DeLong). Where
images were learnt from before, that model's tower has as well.
"""

import shutil

from study import Study, spread

BEFORE = ["training.unlabelled=50", "training.tower_rate=0.5"]
TAUGHT = [*BEFORE, "training.branches={ own = 0.5, joint = 0.5 }"]
PLAIN = ["training.epochs=40"]
SETTINGS = {
    "300 labelled, images without labels before, branches": ["task.0.labelled=0.075", *TAUGHT],
    # Whether the model of one modality had time enough.
    "300 labelled, images without labels before, three times as long": ["task.0.labelled=0.075", *BEFORE, "training.epochs=60", "training.patience=60"],
    "10 % labelled, images without labels before, branches": ["task.0.labelled=0.1", *TAUGHT],
    "10 % labelled": ["task.0.labelled=0.1", *PLAIN],
    "30 % labelled": ["task.0.labelled=0.3", *PLAIN],
}
study = Study("branches", __doc__, "8201-8205", 8000)


def measure(keys):
    for key in keys:
        seed = key["seed"]
        at = study.cohort(seed, f"-{list(SETTINGS).index(key['setting'])}")
        task = study.evaluate(at, seed, *SETTINGS[key["setting"]])["malignant"]
        auroc = {variant: measured["auroc"]["value"] for variant, measured in task["variants"].items()}
        branches = {line["of"]: {"difference": line["auroc"]["value"], "p": line["p"]} for line in task["branches"]}
        yield key, {"n": task["n"], "auroc": auroc, "branches": branches, "gain": task["gain"]["verdict"]}
        shutil.rmtree(at)


done = study.lines([[{"seed": seed, "setting": name}] for name in SETTINGS for seed in study.seeds], measure)
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
