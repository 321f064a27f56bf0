"""Seconds to compute AUROC, AUPRC, Brier score, log loss and ECE with scikit-learn, with the same bootstrap: one JSON line.

    pip install numpy scikit-learn
    python evaluation_speed.py [PREDICTIONS] [RESAMPLES]
"""
import json
import sys
import time

import numpy as np
from sklearn import metrics as sk

n = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
resamples = int(sys.argv[2]) if len(sys.argv) > 2 else 2000

s, u = 12345, np.empty(2 * n)
for k in range(2 * n):
    s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
    u[k] = (s >> 11) / 2**53
y = (u[0::2] < 0.3).astype(int)
p = np.clip(0.15 + 0.35 * y + 0.5 * (u[1::2] - 0.3), 0.001, 0.999).astype(np.float32).astype(float)


def ece(y, p):
    bins = np.minimum((p * 15).astype(int), 14)
    return np.abs(np.bincount(bins, p - y, minlength=15)).sum() / len(y)


MEASURES = {
    "auroc": sk.roc_auc_score,
    "auprc": sk.average_precision_score,
    "brier": sk.brier_score_loss,
    "log_loss": sk.log_loss,
    "ece": ece,
}
start = time.perf_counter()
values = {name: f(y, p) for name, f in MEASURES.items()}
rng = np.random.default_rng(0)
draws = {name: [] for name in MEASURES}
for _ in range(resamples):
    i = rng.integers(0, n, n)
    for name, f in MEASURES.items():
        draws[name].append(f(y[i], p[i]))
ends = {name: np.quantile(d, [0.025, 0.975]).tolist() for name, d in draws.items()}
seconds = time.perf_counter() - start
print(
    json.dumps(
        {
            "what": "evaluation",
            "predictions": n,
            "resamples": resamples,
            "seconds": seconds,
            "seconds_per_resample": seconds / max(resamples, 1),
            **{name: [float(values[name]), *ends[name]] for name in MEASURES},
        }
    )
)
