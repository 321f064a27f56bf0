"""Prints the constants that the tests of synovia-evaluation hold its measures against.

    pip install numpy scipy scikit-learn scikit-survival lifelines statsmodels scikit-uplift
    python constants.py

Every number is another implementation's; where none has a measure, it is the textbook's formula in numpy, and the line says so.
"""
import importlib.metadata as m
import warnings

import numpy as np
import statsmodels.api as sm
from lifelines.utils import concordance_index
from scipy import special, stats
from sklearn import metrics as sk
from sklearn.isotonic import IsotonicRegression
from sksurv import metrics as sv
from sksurv.nonparametric import kaplan_meier_estimator
from statsmodels.stats import contingency_tables, multitest, proportion

warnings.filterwarnings("ignore")
for name in ["numpy", "scipy", "scikit-learn", "scikit-survival", "lifelines", "statsmodels", "scikit-uplift"]:
    print(f"# {name} {m.version(name)}")


def show(name, *values):
    print(name, *(repr(float(v)) for v in values))


s, u = 12345, []
for _ in range(2400):
    s = (s * 6364136223846793005 + 1442695040888963407) % 2**64
    u.append((s >> 11) / 2**53)
u = np.array(u)
n = 200
y = (u[:n] < 0.3).astype(int)
p1 = np.clip(0.15 + 0.35 * y + 0.5 * (u[n : 2 * n] - 0.3), 0.001, 0.999)
p2 = np.round(np.clip(0.2 + 0.2 * y + 0.6 * (u[2 * n : 3 * n] - 0.3), 0, 1), 2)
show("u0", u[0])

# Binary
for name, p in [("p1", p1), ("p2", p2)]:
    show(f"{name} auroc ap brier", sk.roc_auc_score(y, p), sk.average_precision_score(y, p), sk.brier_score_loss(y, p))
    show(f"{name} partial auroc .1 .3", sk.roc_auc_score(y, p, max_fpr=0.1), sk.roc_auc_score(y, p, max_fpr=0.3))
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    show(f"{name} sensitivity at specificity .9", tpr[fpr <= 0.1 + 1e-12].max())
    show(f"{name} specificity at sensitivity .9", (1 - fpr[tpr >= 0.9 - 1e-12]).max())
    d = (p >= 0.3).astype(int)
    show(f"{name} f1 mcc kappa balanced", sk.f1_score(y, d), sk.matthews_corrcoef(y, d), sk.cohen_kappa_score(y, d), sk.balanced_accuracy_score(y, d))
    tn, fp, fn, tp = sk.confusion_matrix(y, d).ravel()
    show(f"{name} tp fp fn tn", tp, fp, fn, tn)
    show(f"{name} sens spec ppv npv", sk.recall_score(y, d), sk.recall_score(y, d, pos_label=0), sk.precision_score(y, d), sk.precision_score(y, d, pos_label=0))
    # (Numpy) 15 bins of equal width; 10 of equal mass as np.array_split of the sorted has them
    b = np.minimum((p * 15).astype(int), 14)
    parts = [(b == k) for k in range(15) if (b == k).any()]
    show(f"{name} ece width (numpy)", sum(abs(p[k].sum() - y[k].sum()) for k in parts) / n)
    order = np.argsort(p, kind="stable")
    show(f"{name} ece mass 10 (numpy)", sum(abs(p[k].sum() - y[k].sum()) for k in np.array_split(order, 10)) / n)
    rel = sum(k.sum() * (p[k].mean() - y[k].mean()) ** 2 for k in parts) / n
    res = sum(k.sum() * (y[k].mean() - y.mean()) ** 2 for k in parts) / n
    show(f"{name} murphy reliability resolution uncertainty (numpy)", rel, res, y.mean() * (1 - y.mean()))
show("p1 log loss", sk.log_loss(y, p1))
z1 = special.logit(p1)
for name, p in [("p1", p1), ("p2 clipped", np.clip(p2, 0.01, 0.99))]:
    z = special.logit(p)
    fit = sm.GLM(y, sm.add_constant(z), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    show(f"{name} slope se", fit.params[1], fit.bse[1])
    fit = sm.GLM(y, np.ones((n, 1)), offset=z, family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
    show(f"{name} intercept (slope 1) se", fit.params[0], fit.bse[0])

# DeLong (numpy, by pairs), McNemar, Wilson, Holm
psi = lambda p: (p[y == 1][:, None] > p[y == 0]) + 0.5 * (p[y == 1][:, None] == p[y == 0])
a, b = psi(p1), psi(p2)
d = a.mean() - b.mean()
v = np.var((a - b).mean(1), ddof=1) / (y == 1).sum() + np.var((a - b).mean(0), ddof=1) / (y == 0).sum()
show("delong d se z p (numpy)", d, v**0.5, d / v**0.5, 2 * stats.norm.sf(abs(d) / v**0.5))
show("delong p1 se (numpy)", (np.var(a.mean(1), ddof=1) / (y == 1).sum() + np.var(a.mean(0), ddof=1) / (y == 0).sum()) ** 0.5)
r1, r2 = (p1 >= 0.3) == y, (p2 >= 0.3) == y
table = [[(r1 & r2).sum(), (r1 & ~r2).sum()], [(~r1 & r2).sum(), (~r1 & ~r2).sum()]]
print("mcnemar table", table)
for exact in [True, False]:
    r = contingency_tables.mcnemar(table, exact=exact, correction=True)
    show(f"mcnemar exact={exact}", r.statistic, r.pvalue)
for t in [(10, 2), (25, 11), (0, 3), (60, 40)]:
    show(f"mcnemar {t}", *(contingency_tables.mcnemar([[0, t[0]], [t[1], 0]], exact=e, correction=True).pvalue for e in (True, False)))
for k, nn in [(45, 50), (0, 20), (20, 20), (1, 3)]:
    show(f"wilson {k}/{nn}", *proportion.proportion_confint(k, nn, method="wilson"))
show("holm", *multitest.multipletests([0.01, 0.04, 0.03, 0.005, 0.5], method="holm")[1])

# BCa of AUROC: 400 resamples of 60 examples, indices from u
yy, pp = y[:60], p2[:60]
v = np.tile(u, 10)
draws = (v[: 400 * 60].reshape(400, 60) * 60).astype(int) if len(v) >= 24000 else None
auc = lambda i: sk.roc_auc_score(yy[i], pp[i])
theta = np.array([auc(i) for i in draws])
hat = auc(np.arange(60))
jack = np.array([auc(np.delete(np.arange(60), k)) for k in range(60)])
dj = jack.mean() - jack
acc = (dj**3).sum() / (6 * (dj**2).sum() ** 1.5)
z0 = special.ndtri(((theta < hat).sum() + 0.5 * (theta == hat).sum()) / len(theta))
al = [special.ndtr(z0 + (z0 + z) / (1 - acc * (z0 + z))) for z in special.ndtri([0.025, 0.975])]
show("bca (Efron 1987, numpy; z0 with half the ties as scipy.stats.bootstrap)", hat, acc, z0, *np.quantile(theta, al))
show("ndtri", *special.ndtri([1e-10, 0.025, 0.3, 0.975]))
show("ndtr", *special.ndtr([-6.0, -1.0, 0.3, 2.5]))

# Multiclass: labels and probabilities from u
k3 = (u[600:800] * 3).astype(int)
raw = np.stack([u[800:1000], u[1000:1200], u[1200:1400]], 1) + 0.6 * np.eye(3)[k3]
P = raw / raw.sum(1, keepdims=True)
for how in ["ovr", "ovo"]:
    show(f"multiclass auroc {how} macro weighted", *(sk.roc_auc_score(k3, P, multi_class=how, average=a) for a in ("macro", "weighted")))
Y3 = np.eye(3)[k3]
show("multiclass ap macro weighted micro", *(sk.average_precision_score(Y3, P, average=a) for a in ("macro", "weighted", "micro")))
d3 = P.argmax(1)
show("multiclass f1 macro weighted micro", *(sk.f1_score(k3, d3, average=a) for a in ("macro", "weighted", "micro")))
show("multiclass mcc kappa balanced accuracy", sk.matthews_corrcoef(k3, d3), sk.cohen_kappa_score(k3, d3), sk.balanced_accuracy_score(k3, d3), sk.accuracy_score(k3, d3))
show("multiclass quadratic kappa", sk.cohen_kappa_score(k3, d3, weights="quadratic"))
show("multiclass log loss", sk.log_loss(k3, P))
# Multilabel
L = np.stack([u[1400:1600] < 0.3, u[1600:1800] < 0.5, u[1800:2000] < 0.1], 1).astype(int)
S = np.clip(0.3 * L + 0.7 * np.stack([u[2000:2200], u[2200:2400], u[:200]], 1), 0, 1)
show("multilabel auroc macro weighted micro", *(sk.roc_auc_score(L, S, average=a) for a in ("macro", "weighted", "micro")))
show("multilabel ap macro weighted micro", *(sk.average_precision_score(L, S, average=a) for a in ("macro", "weighted", "micro")))
D = (S >= 0.5).astype(int)
show("multilabel f1 macro weighted micro", *(sk.f1_score(L, D, average=a) for a in ("macro", "weighted", "micro")))
show("multilabel hamming subset", sk.hamming_loss(L, D), sk.accuracy_score(L, D))

# Regression
t, q = 3 * p1 + u[600:800], np.round(3 * p2 + u[800:1000], 1)
show("regression mae rmse r2", sk.mean_absolute_error(t, q), sk.root_mean_squared_error(t, q), sk.r2_score(t, q))
show("regression pearson spearman", stats.pearsonr(t, q)[0], stats.spearmanr(t, q)[0])

# Survival: times rounded to .5, so that there are ties
rate = 0.1 * np.exp(2 * (p1 - 0.5))
event_time, censor = -np.log1p(-u[600:800]) / rate, -np.log1p(-u[800:1000]) / 0.08
time, event = np.ceil(2 * np.minimum(event_time, censor)) / 2, event_time <= censor
both = np.array(list(zip(event, time)), dtype=[("e", bool), ("t", float)])
train, test = both, both[100:]
show("survival events", event.sum(), time[0], time[199])
show("harrell (lifelines)", concordance_index(time, -p2, event))
show("harrell (sksurv)", sv.concordance_index_censored(event, time, p2)[0])
show("uno tau=20", sv.concordance_index_ipcw(train, test, p2[100:], tau=20.0)[0], sv.concordance_index_ipcw(both, both, p2, tau=15.0)[0])
times = np.array([2.0, 5.0, 10.0, 15.0])
auc_t, mean_auc = sv.cumulative_dynamic_auc(train, test, p2[100:], times)
show("time-dependent auroc", *auc_t, mean_auc)
surv = np.exp(-rate[100:, None] * times)
show("brier at", *sv.brier_score(train, test, surv, times)[1])
show("integrated brier", sv.integrated_brier_score(train, test, surv, times))
km_t, km_s = kaplan_meier_estimator(event, time)
for at in [2.0, 10.0]:
    show(f"kaplan-meier at {at}", km_s[km_t <= at][-1])

# Treatment
w = (u[1000:1200] < 0.3 + 0.4 * p1).astype(int)
mu0, mu1 = p2, np.clip(p2 + 0.3 * (u[1200:1400] - 0.4), 0, 1)
out = (u[1400:1600] < np.where(w == 1, mu1, mu0)).astype(int)
est = 0.5 * (mu1 - mu0) + 0.05 * u[1600:1800]
e = 0.3 + 0.4 * p1
show("pehe ate-error (numpy)", np.sqrt(np.mean((est - (mu1 - mu0)) ** 2)), abs(est.mean() - (mu1 - mu0).mean()))
pi = (est > 0.03).astype(int)
m0, m1 = mu0 + 0.02, mu1 - 0.01
dr1, dr0 = m1 + w / e * (out - m1), m0 + (1 - w) / (1 - e) * (out - m0)
psi = np.where(pi == 1, dr1, dr0)
show("policy value dr, se (numpy)", psi.mean(), psi.std(ddof=1) / n**0.5)
show("ate dr, se (numpy)", (dr1 - dr0).mean(), (dr1 - dr0).std(ddof=1) / n**0.5)
import sklearn.utils as _su

try:
    from sklift import metrics as ul

    show("qini auc, uplift auc (scikit-uplift)", ul.qini_auc_score(out, est, w), ul.uplift_auc_score(out, est, w))
    x, c = ul.qini_curve(out, est, w)
    show("qini curve at", x[50], c[50], x[100], c[100], x[-1], c[-1])
except Exception as error:  # scikit-uplift lags behind scikit-learn
    print("scikit-uplift:", error)

# Calibration maps
t_hi, t_lo = (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2)
z2 = special.logit(np.clip(p2, 0.01, 0.99))
fit = sm.GLM(np.where(y == 1, t_hi, t_lo), sm.add_constant(z2), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
show("platt intercept slope", *fit.params)
c = np.clip(p2, 0.01, 0.99)
fit = sm.GLM(y, sm.add_constant(np.stack([np.log(c), -np.log1p(-c)], 1)), family=sm.families.Binomial()).fit(tol=1e-14, maxiter=200)
show("beta c a b", *fit.params)
iso = IsotonicRegression(out_of_bounds="clip").fit(p2, y)
show("isotonic at 0 .1 .2 .3 .33 .45 .6 1", *iso.predict([0, 0.1, 0.2, 0.3, 0.33, 0.45, 0.6, 1]))
show("isotonic pava", *IsotonicRegression().fit_transform(range(6), [1, 3, 2, 4, 3.5, 6]))
