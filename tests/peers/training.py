"""Training steps and evaluation of synovia and of train_torch.py, in turn.

  python tests/peers/training.py TRAIN_TORCH.py [--synovia target/release/synovia] [--rounds 5]

Each round runs ours, then the peer's (its better layout counts), for both sizes. The peer does not measure the forward pass of
evaluation: its own network is run here for that, in both layouts, with the same losses, without gradients. Prints a Markdown
table: medians over the rounds, the ratio of each round's times (median, least, largest), peak resident memory.
"""
import argparse, json, os, statistics, subprocess, sys

SIZES = [(16, 224, 64, 6), (32, 64, 32, 20)]

EVALUATION = """
import sys, json, statistics, time
source, batch, size, width, steps, threads = sys.argv[1], *map(int, sys.argv[2:7])
code = open(source).read()
exec(code[: code.index("p = argparse.ArgumentParser()")])
torch.set_num_threads(threads)
best = None
for channels_last in (False, True):
    torch.manual_seed(0)
    net = Joint(width).eval()
    x = torch.randn(batch, 1, size, size); r = torch.randn(batch, 64); present = torch.ones(batch, 2)
    y1 = torch.randint(0, 2, (batch,)).float(); y5 = torch.randint(0, 5, (batch,))
    if channels_last:
        net = net.to(memory_format=torch.channels_last); x = x.contiguous(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for k in range(steps + 3):
            t = time.perf_counter()
            b, m = net(x, r, present)
            float(F.binary_cross_entropy_with_logits(b, y1) + F.cross_entropy(m, y5))
            if k >= 3: times.append((time.perf_counter() - t) * 1e3)
    ms = statistics.median(times)
    best = ms if best is None else min(best, ms)
print(best)
"""


def run(command):
    """Standard output, and peak resident memory in MB."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{command} failed")
    return out, usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser()
    p.add_argument("peer")
    p.add_argument("--synovia", default="target/release/synovia")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--threads", type=int, default=2)
    a = p.parse_args()
    rows = {size: [] for size in SIZES}
    for _ in range(a.rounds):
        for batch, size, width, steps in SIZES:
            of = ["--batch", str(batch), "--size", str(size), "--width", str(width), "--steps", str(steps)]
            ours, our_memory = run([a.synovia, "bench", "train", *of])
            theirs, their_memory = run([sys.executable, a.peer, *of, "--threads", str(a.threads)])
            evaluation, _ = run([sys.executable, "-c", EVALUATION, a.peer, *map(str, (batch, size, width, steps, a.threads))])
            ours, theirs = json.loads(ours)["best"], json.loads(theirs)["best"]
            rows[batch, size, width, steps].append(
                (ours["step_ms"], theirs["step_ms"], ours["evaluation_ms"], float(evaluation), our_memory, their_memory)
            )
    print("| | synovia | PyTorch | ratio: median (least to largest) |\n|---|---|---|---|")
    for (batch, size, width, _), measured in rows.items():
        for name, ours, theirs in (("step", 0, 1), ("evaluation forward", 2, 3)):
            ratios = sorted(row[theirs] / row[ours] for row in measured)
            of = lambda column: statistics.median(row[column] for row in measured)
            print(
                f"| {name}, batch {batch}, {size} × {size}, width {width} | {of(ours):.1f} ms | {of(theirs):.1f} ms "
                f"| {statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}) |"
            )
        ours, theirs = (statistics.median(row[k] for row in measured) for k in (4, 5))
        print(f"| peak memory, batch {batch}, {size} × {size}, width {width} | {ours:.0f} MB | {theirs:.0f} MB | {ours / theirs:.2f} × |")


main()
