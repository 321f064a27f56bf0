"""Whether the fused kernels change what is learnt: the same cohorts and seeds with the kernels and with burn's own operations.

  python3 tests/peers/kernels_accuracy.py [--synovia target/release/synovia] [--seeds 41 42 43 44 45]

Prints a Markdown table: AUROC of `malignant` on the test split by the joint and the image model, and seconds of all stages.
"""
import argparse, json, statistics, subprocess, tempfile, time

SETTINGS = ["images.size=64", "model.width=8", "training.epochs=12"]


def measure(synovia, data, run, seed, kernels):
    settings = [f"images.path={data}/dicom", f"records.path={data}/fhir", f"training.kernels={kernels}", *SETTINGS]
    start = time.perf_counter()
    command = [synovia, "evaluate", "pipelines/lung.toml", "--quiet", "--run", run, "--seed", str(seed)]
    subprocess.run([*command, *(x for s in settings for x in ("--set", s))], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - start
    variants = json.load(open(f"{run}/metrics.json"))["tasks"]["malignant"]["variants"]
    return variants["joint"]["auroc"]["value"], variants["image"]["auroc"]["value"], seconds


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--synovia", default="target/release/synovia")
    p.add_argument("--patients", type=int, default=1000)
    p.add_argument("--seeds", type=int, nargs="+", default=[41, 42, 43, 44, 45])
    a = p.parse_args()
    rows = []
    print("| seed | joint, kernels | joint, burn | image, kernels | image, burn | seconds, kernels | seconds, burn |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seed in a.seeds:
            data = f"{folder}/{seed}"
            simulate = [a.synovia, "simulate", "--quiet", "--out", data, "--patients", str(a.patients), "--seed", str(seed)]
            subprocess.run(simulate, check=True, stdout=subprocess.DEVNULL)
            with_kernels = measure(a.synovia, data, f"{folder}/{seed}-kernels", seed, "true")
            by_burn = measure(a.synovia, data, f"{folder}/{seed}-burn", seed, "false")
            row = [x for pair in zip(with_kernels, by_burn) for x in pair]
            rows.append(row)
            print(f"| {seed} | " + " | ".join(f"{x:.4f}" for x in row[:4]) + f" | {row[4]:.0f} | {row[5]:.0f} |", flush=True)
    for name, k in (("joint", 0), ("image", 2)):
        gaps = [row[k] - row[k + 1] for row in rows]
        spread = statistics.stdev(row[k + 1] for row in rows)
        print(f"{name}: kernels − burn {statistics.mean(gaps):+.4f} (standard deviation {statistics.stdev(gaps):.4f}); over seeds burn's own AUROC has {spread:.4f}")


main()
