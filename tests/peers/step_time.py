"""Step time against batch and image size, as docs/step-time.svg: it should grow linearly with the pixels of a batch.

  python tests/peers/step_time.py [--synovia target/release/synovia] [--out docs/step-time.svg]

Prints a Markdown table: milliseconds a step (median of the rounds' medians), and microseconds a thousand pixels.
"""
import argparse, json, statistics, subprocess

WIDTH = 32
BATCHES = [4, 8, 16, 32, 64]
SIDES = [64, 96, 128, 192, 224]
SHADES = ["#0b5394", "#3d85c6", "#6aa84f", "#e69138", "#cc4125"]


def step_ms(synovia, batch, side):
    of = ["--batch", str(batch), "--size", str(side), "--width", str(WIDTH), "--steps", "5"]
    out = subprocess.run([synovia, "bench", "train", *of], capture_output=True, check=True, text=True).stdout
    return json.loads(out)["best"]["step_ms"]


def svg(times):
    """Both axes linear, from 0: pixels of a batch, milliseconds; a line an image size."""
    width, height, left, bottom = 640, 400, 60, 45
    most_x = max(batch * side * side for batch, side in times)
    most_y = max(times.values())
    x = lambda pixels: left + pixels / most_x * (width - left - 70)
    y = lambda ms: height - bottom - ms / most_y * (height - bottom - 20)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#333" role="img">',
        "<title>Milliseconds of a training step against the pixels of its batch</title>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
        f'<path d="M{left},{y(most_y):.0f}V{y(0):.0f}H{x(most_x):.0f}" fill="none" stroke="#666"/>',
        f'<text x="{width / 2:.0f}" y="{height - 8}" text-anchor="middle">million pixels a batch</text>',
        f'<text x="14" y="{height / 2:.0f}" text-anchor="middle" transform="rotate(-90 14 {height / 2:.0f})">ms a step, width {WIDTH}</text>',
    ]
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<text x="{x(share * most_x):.0f}" y="{y(0) + 16:.0f}" text-anchor="middle">{share * most_x / 1e6:.1f}</text>')
        parts.append(f'<text x="{left - 6}" y="{y(share * most_y) + 4:.0f}" text-anchor="end">{share * most_y:.0f}</text>')
    for side, shade in zip(SIDES, SHADES):
        points = [(batch * side * side, times[batch, side]) for batch in BATCHES]
        line = " ".join(f"{x(pixels):.1f},{y(ms):.1f}" for pixels, ms in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{shade}" stroke-width="1.5"/>')
        parts += [f'<circle cx="{x(pixels):.1f}" cy="{y(ms):.1f}" r="3" fill="{shade}"/>' for pixels, ms in points]
    for k, (side, shade) in enumerate(zip(SIDES, SHADES)):
        parts.append(f'<text x="{left + 16}" y="{30 + 16 * k}" fill="{shade}">{side} × {side}, batches of 4 to 64</text>')
    return "\n".join([*parts, "</svg>\n"])


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--synovia", default="target/release/synovia")
    p.add_argument("--out", default="docs/step-time.svg")
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    grid = [(batch, side) for side in SIDES for batch in BATCHES]
    measured = {place: [] for place in grid}
    for _ in range(a.rounds):  # in turn, so that a slow spell of the machine does not fall on one size alone
        for batch, side in grid:
            measured[batch, side].append(step_ms(a.synovia, batch, side))
    times = {place: statistics.median(ms) for place, ms in measured.items()}
    print("| | " + " | ".join(f"{side} × {side}" for side in SIDES) + " |\n|" + "---|" * (len(SIDES) + 1))
    for batch in BATCHES:
        cells = [f"{times[batch, side]:.0f} ms, {times[batch, side] * 1e6 / (batch * side * side):.0f}" for side in SIDES]
        print(f"| batch {batch} | " + " | ".join(cells) + " |")
    open(a.out, "w").write(svg(times))


main()
