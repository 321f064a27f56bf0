"""From files to ONNX: `synovia run`, and the same by the peers one after the other.

  python tests/peers/files_to_onnx.py PEERS [--synovia target/release/synovia] [--patients 1400] [--rounds 3]

PEERS is the folder of ingest_pydicom.py, records_python.py and train_torch.py. The cohort is simulated. Ours does everything:
ingest, alignment, the joint model, the image model and the record model, baselines, metrics with intervals, the report, the
checked export. The peers' chain ingests the images (pydicom), makes the features (orjson, pandas), trains its network for as many
steps of as many images as our joint and image models took (PyTorch, the better layout, which is found before the clock
starts), and exports it (torch.onnx). Its record model, batches from disk, augmentation, validation and report cost it nothing
here. Prints a JSON line a round, and the ratios.
"""
import argparse, json, os, shutil, statistics, subprocess, sys, tempfile, time

import pyarrow.parquet as pq

CHAIN = """
import sys, json, time
source, batch, size, width, steps, threads, layout, out = sys.argv[1], *map(int, sys.argv[2:7]), sys.argv[7], sys.argv[8]
code = open(source).read()
exec(code[: code.index("p = argparse.ArgumentParser()")])
torch.set_num_threads(threads)
class A: pass
a = A(); a.batch, a.size, a.width, a.steps = batch, size, width, steps - 3
started = time.perf_counter()
run(a, layout == "channels_last", False)
trained = time.perf_counter()
net = Joint(width).eval()
x, r, present = torch.randn(2, 1, size, size), torch.randn(2, 64), torch.ones(2, 2)
torch.onnx.export(net, (x, r, present), out, dynamo=False, opset_version=18, input_names=["image", "record", "present"],
                  output_names=["binary", "multi"], dynamic_axes={k: {0: "batch"} for k in ("image", "record", "present", "binary", "multi")})
print(json.dumps({"training_s": trained - started, "export_s": time.perf_counter() - trained}))
"""


def timed(command):
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - start, done.stdout


def main():
    p = argparse.ArgumentParser()
    p.add_argument("peers")
    p.add_argument("--synovia", default="target/release/synovia")
    p.add_argument("--pipeline", default="pipelines/lung.toml")
    p.add_argument("--patients", type=int, default=1400)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--set", action="append", default=[])
    a = p.parse_args()
    folder = tempfile.mkdtemp()
    data, run, onnx = f"{folder}/data", f"{folder}/run", f"{folder}/peer.onnx"
    subprocess.run([a.synovia, "simulate", "--quiet", "--out", data, "--patients", str(a.patients), "--seed", "31"], check=True, stdout=subprocess.DEVNULL)
    files = sum(len(names) for _, _, names in os.walk(f"{data}/dicom"))
    settings = [f"images.path={data}/dicom", f"records.path={data}/fhir", f"training.threads={a.threads}", *a.set]
    ratios = []
    for _ in range(a.rounds):
        shutil.rmtree(run, ignore_errors=True)
        ours, _ = timed([a.synovia, "run", a.pipeline, "--quiet", "--run", run, *(x for s in settings for x in ("--set", s))])
        resolved = open(f"{run}/pipeline.toml").read()
        value = lambda key: int(next(line.split("=")[1] for line in resolved.splitlines() if line.startswith(f"{key} =")))
        batch, size, width = value("batch"), value("size"), value("width")
        history = [json.loads(line) for line in open(f"{run}/history.jsonl")]
        n_train = pq.read_table(f"{run}/cohort/examples.parquet", columns=["split"])["split"].to_pylist().count("train")
        with_images = [line for line in history if line.get("variant") in ("joint", "image")]
        steps = round(len(with_images) * n_train / batch)
        of = [str(x) for x in (batch, size, width)]
        probe = json.loads(timed([sys.executable, f"{a.peers}/train_torch.py", "--batch", of[0], "--size", of[1], "--width", of[2], "--steps", "30", "--threads", str(a.threads)])[1])
        images, _ = timed([sys.executable, f"{a.peers}/ingest_pydicom.py", f"{data}/dicom", f"{folder}/images.npy", "--jobs", str(a.threads), "--size", str(size)])
        records, _ = timed([sys.executable, f"{a.peers}/records_python.py", f"{data}/fhir", f"{folder}/records.parquet", "--jobs", str(a.threads)])
        torch, parts = timed([sys.executable, "-c", CHAIN, f"{a.peers}/train_torch.py", *of, str(steps), str(a.threads), probe["best"]["layout"], onnx])
        theirs = images + records + torch
        ratios.append(theirs / ours)
        print(json.dumps({"files": files, "steps": steps, "batch": batch, "size": size, "width": width, "layout": probe["best"]["layout"], "synovia_s": round(ours, 1), "peers_s": round(theirs, 1), "images_s": round(images, 1), "records_s": round(records, 1), "training_and_export_s": round(torch, 1), **json.loads(parts), "ratio": round(theirs / ours, 2)}), flush=True)
    print(f"ratio: median {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    shutil.rmtree(folder)


main()
