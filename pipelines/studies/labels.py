"""What a diagnosis with a tenth of its labels reaches where the other patients teach other tasks: simulated cohorts of 16,000 patients, of
whom 8,000 train.

    python3 pipelines/studies/labels.py [--seeds 8611-8615]

Of each cohort, whose seed is new, joint models are trained: on a tenth of the training patients' diagnoses with the other tasks of
tasks.toml (a stage, a finding, the time to deterioration, the effects of a treatment), of which all labels are used; on a tenth alone; and on
30 % alone, from scratch. Each is trained until longer training gives no more. A line of JSON a cohort and setting goes to
runs/labels/labels.jsonl; those that are there already are not made again. Prints the AUROC of the diagnosis, and by how much the first is
above the last.
"""

import shutil
import tomllib

from study import HERE, Study, inline, spread

study = Study("labels", __doc__, "8611-8615", 16000, toml=HERE / "tasks.toml")
TABLES = tomllib.loads(study.arguments.toml.read_text())["task"]


def tasks(share, others):
    first = TABLES[0] | {"labelled": share}
    rest = [{key: value for key, value in table.items() if key != "labelled"} for table in TABLES[1:]] if others else []
    return [f"task={inline([first, *rest])}", "training.singles=false"]


SETTINGS = {
    "10 % labelled, other tasks": [*tasks(0.1, True), "training.epochs=100"],
    # Steps are of labelled examples only: as many as the 30 % have.
    "10 % labelled": [*tasks(0.1, False), "training.epochs=180"],
    "30 % labelled": [*tasks(0.3, False), "training.epochs=60"],
}


def measure(keys):
    seed = keys[0]["seed"]
    at = study.cohort(seed, "")
    for key in keys:
        metrics = study.evaluate(at, seed, *SETTINGS[key["setting"]])["malignant"]
        yield key, {"n": metrics["n"], "auroc": {variant: of["auroc"]["value"] for variant, of in metrics["variants"].items()}}
    shutil.rmtree(at)


done = study.lines([[{"seed": seed, "setting": name} for name in SETTINGS] for seed in study.seeds], measure)
for name in SETTINGS:
    lines = [line for line in done if line["setting"] == name]
    for variant in lines[0]["auroc"] if lines else ():
        print(f"{name:28} {variant:16} AUROC {spread([line['auroc'][variant] for line in lines])}")
joint = {(line["seed"], line["setting"]): line["auroc"]["joint"] for line in done}
first, *_, last = SETTINGS
print(f"difference {spread([joint[seed, first] - joint[seed, last] for seed in study.seeds])}")
