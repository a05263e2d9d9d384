#!/usr/bin/env python3
"""Makes golden.json, the values that the tests of this crate hold its functions against.

Every value comes from an implementation that shares nothing with the crate: mpmath with 50 digits, scipy, statsmodels
(Wilson), lifelines (Kaplan-Meier), ville (betting, mSPRT, e-BH) and confseq (the authors' own C++). No test runs this;
run it by hand after adding a case, in an environment of your own:

    python3 -m venv v && v/bin/pip install scipy mpmath ville==0.1.0 lifelines==0.30.3 statsmodels==0.15.0
    v/bin/pip download --no-deps --no-binary :all: confseq==0.0.11    # a source archive; unpack it
    g++ -O2 -std=c++17 -I confseq-0.0.11/src/confseq golden/confseq.cpp -o confseq    # needs Boost.Math
    v/bin/python golden/golden.py ./confseq > golden/golden.json

Each entry is a name and a list of [inputs, output].
"""

import json
import subprocess
import sys

import mpmath as mp
import numpy as np
import ville
from lifelines import KaplanMeierFitter
from lifelines.utils import median_survival_times
from scipy import special, stats
from statsmodels.stats.proportion import proportion_confint
from ville.evalues import combine, ebh
from ville.means import EmpiricalBernsteinCS
from ville.sequential import MSPRT, BettingTest

mp.mp.dps = 50
random = np.random.default_rng(20240601)
golden = {}


def case(name, inputs, output):
    if name not in golden:
        print(name, file=sys.stderr)
    golden.setdefault(name, []).append([[float(v) for v in inputs], float(output)])


def confseq(calls):
    text = "\n".join(" ".join(map(repr_number, call)) for call in calls)
    done = subprocess.run([sys.argv[1]], input=text, capture_output=True, text=True, check=True)
    return [float(v) for v in done.stdout.split()]


def repr_number(v):
    return v if isinstance(v, str) else repr(float(v))


# --- special functions -------------------------------------------------------------------------------------------

def beta_kernel(x, a, b):
    x, a, b = mp.mpf(x), mp.mpf(a), mp.mpf(b)
    return a * mp.log(x) + b * mp.log(1 - x) - ln_beta(a, b)


def ln_beta(a, b):
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(mp.mpf(a) + mp.mpf(b))


def lower_fraction(x, a, b):
    """ln I_x(a, b) where x is at most about the mean, by an integral scaled to its value at x (all in 50 digits)."""
    x, a, b = mp.mpf(x), mp.mpf(a), mp.mpf(b)
    sd = mp.sqrt(a * b / (a + b) ** 2 / (a + b + 1))
    f = lambda u: mp.exp((a - 1) * mp.log(1 - u * sd / x) + (b - 1) * mp.log(1 + u * sd / (1 - x)))
    end = x / sd
    points = [v for v in (0, 0.02, 0.1, 0.5, 1, 2, 4, 6, 8, 10, 14, 20, 40) if v < end]
    if end < 60:
        points.append(end)
    return beta_kernel(x, a, b) - mp.log(x) - mp.log(1 - x) + mp.log(mp.quad(f, points) * sd)


def ln_inc_beta(x, a, b):
    if a + b < 5000:
        return mp.log(mp.betainc(a, b, 0, mp.mpf(x), regularized=True))
    if x <= a / (a + b):
        return lower_fraction(x, a, b)
    return mp.log1p(-mp.exp(lower_fraction(1 - mp.mpf(x), b, a)))


def gamma_kernel(x, a):
    return mp.mpf(a) * mp.log(x) - x - mp.loggamma(a)


def ln_gamma_tail(a, x, upper):
    a, x = mp.mpf(a), mp.mpf(x)
    if a < 2000:
        low = mp.gammainc(a, 0, x, regularized=True)
        high = mp.gammainc(a, x, mp.inf, regularized=True)
        return mp.log(high if upper else low)
    sd = mp.sqrt(a)
    sign = 1 if x > a else -1
    f = lambda u: mp.exp((a - 1) * mp.log(1 + sign * u * sd / x) - sign * u * sd)
    points = [0, 0.02, 0.1, 0.5, 1, 2, 4, 6, 8, 10, 14, 20, 40]
    if sign < 0:
        points = [v for v in points if v < x / sd]
    tail = gamma_kernel(x, a) - mp.log(x) + mp.log(mp.quad(f, points) * sd)
    return tail if upper == (sign > 0) else mp.log1p(-mp.exp(tail))


for x in [1e-8, 0.1, 0.5, 1, 1.5, 2, 10, 15.9, 16.1, 100.5, 1000001, 1e9, 1e12, 1e15]:
    case("ln_gamma", [x], mp.loggamma(x))
PAIRS = [(1, 1), (0.5, 0.5), (0.01, 3), (11, 991), (2, 1e6), (9.5, 9.5), (9.5, 10.5), (12, 300), (3.3, 1e12),
         (1e6, 1e6), (1e12, 1e12), (5e11, 1e3), (1e15, 4)]
for a, b in PAIRS:
    case("ln_beta", [a, b], ln_beta(a, b))
for x in [0.3, 1e-6, 0.999]:
    for a, b in PAIRS:
        case("ln_beta_kernel", [x, a, b], beta_kernel(x, a, b))
for x, a, b in [(0.5, 5e11, 5e11), (0.010001, 1e10, 99e10), (2e-12, 2, 1e12)]:
    case("ln_beta_kernel", [x, a, b], beta_kernel(x, a, b))
for x, a in [(0.1, 0.1), (3, 5), (5, 3), (1e-5, 20), (100, 101), (1e6, 1e6), (1.001e12, 1e12), (1e3, 1)]:
    case("ln_gamma_kernel", [x, a], gamma_kernel(x, a))
for x, a, b in [
    (0.01, 1, 1), (0.01, 1, 651), (0.3, 5, 7), (0.9, 5, 7), (0.5, 200, 200), (0.01, 400, 300), (0.002, 3, 1000),
    (0.3, 0.2, 0.7), (0.99, 0.2, 0.7), (0.45, 99, 99), (0.45, 101, 101), (0.5, 101, 101), (0.55, 101, 101),
    (0.2, 150, 450), (0.25, 150, 450), (0.3, 150, 450), (0.1, 150, 450), (0.01, 110, 9000), (0.013, 110, 9000),
    (0.02, 110, 9000), (0.0099, 1e4, 1e6), (0.01, 1e4, 1e6), (0.0102, 1e4, 1e6), (0.5, 1e6, 1e6), (0.4999, 1e6, 1e6),
    (0.499, 1e6, 1e6), (0.5, 5e11, 5e11), (0.4999995, 5e11, 5e11), (0.5000005, 5e11, 5e11), (2e-12, 3, 1e12),
    (0.00999999, 1e10, 99e10),
]:
    case("ln_inc_beta", [x, a, b], ln_inc_beta(x, a, b))
for x, a, b in [(4e-12, 3, 1e12), (1e-11, 3, 1e12), (3e-9, 2, 1e9)]:
    case("ln_inc_beta lopsided", [x, a, b], ln_inc_beta(x, a, b))
for a, x in [
    (0.1, 0.01), (0.1, 3), (1, 1), (5, 2), (5, 12), (99, 80), (99, 120), (101, 80), (101, 101), (101, 102.5), (101, 140),
    (101, 20), (101, 400), (1e4, 9.9e3), (1e4, 1e4), (1e4, 1.02e4), (1e6, 1e6), (1e6, 1.003e6), (1e12, 1e12 - 2e6),
    (1e12, 1e12 + 3e6),
]:
    case("ln_inc_gamma_lower", [a, x], ln_gamma_tail(a, x, False))
    case("ln_inc_gamma_upper", [a, x], ln_gamma_tail(a, x, True))
for z in [-50, -37, -10.1, -9.9, -5, -1, 0, 0.9, 1.1, 3, 8, 40]:
    case("normal ln_cdf", [z], mp.log(mp.ncdf(z)) if z < 5 else mp.log1p(-mp.ncdf(-z)))
for p in [1e-300, 1e-20, 1e-6, 0.005, 0.025, 0.2, 0.5, 0.9, 0.975, 0.9999]:
    case("normal quantile", [p], special.ndtri(p))

# --- one share, two arms -----------------------------------------------------------------------------------------

SHARES = [
    (1, 1, 0, 0, 0.1), (1, 1, 0, 100, 0.01), (1, 1, 3, 997, 0.01), (1, 1, 20, 980, 0.01), (1, 1, 5, 5, 0.01),
    (0.7, 2.5, 60, 40, 0.5), (0.02, 1.98, 30, 3000, 0.01), (20, 180, 150, 800, 0.1), (1, 1, 10**6, 9 * 10**6, 0.1),
    (1, 1, 10**10 + 10**6, 99 * 10**10, 0.01),
]


def ln_differs(a, b, h, m, p):
    return beta_kernel(p, a, b) - beta_kernel(p, mp.mpf(a) + h, mp.mpf(b) + m)


def ln_below(a, b, h, m, p):
    return ln_differs(a, b, h, m, p) + ln_inc_beta(p, a + h, b + m) - ln_inc_beta(p, a, b)


def interval(a, b, h, m, alpha):
    """The ends where the evidence is 1 / alpha, by mpmath's root finder on the textbook form of the evidence."""
    f = lambda l: ln_differs(a, b, h, m, 1 / (1 + mp.exp(-l))) + mp.log(alpha)
    seen = mp.log(mp.mpf(max(h, 0.5)) / max(m, 0.5))
    ends = []
    for side in (-1, 1):
        if (h if side < 0 else m) == 0:
            ends.append(mp.mpf(0) if side < 0 else mp.mpf(1))
            continue
        far = mp.mpf(1)
        while f(seen + side * far) < 0:
            far *= 2
        l = mp.findroot(f, (seen, seen + side * far), solver="anderson", tol=1e-30, maxsteps=500)
        ends.append(1 / (1 + mp.exp(-l)))
    return ends


for a, b, h, m, p in SHARES:
    case("bernoulli differs", [a, b, h, m, p], ln_differs(a, b, h, m, p))
    case("bernoulli below", [a, b, h, m, p], ln_below(a, b, h, m, p))
    case("bernoulli above", [a, b, h, m, p], ln_below(b, a, m, h, 1 - p))
# What is small is also asked of scipy, by way of ville.
for h, m, p in [(3, 97, 0.02), (50, 50, 0.4)]:
    x = np.r_[np.ones(h), np.zeros(m)]
    case("bernoulli differs", [1, 1, h, m, p], ville.BernoulliTest(p).fit(x).log_e_values_[-1])
for a, b, h, m in [(1, 1, 0, 50), (1, 1, 50, 0), (1, 1, 3, 97), (0.2, 1.8, 40, 400), (1, 1, 10**6, 10**9)]:
    for alpha in [0.05, 0.001]:
        low, high = interval(a, b, h, m, alpha)
        case("bernoulli interval low", [a, b, h, m, alpha], low)
        case("bernoulli interval high", [a, b, h, m, alpha], high)

calls = [(h, m, p, samples, alpha) for h, m in [(5, 95), (30, 70), (400, 9600)] for p in [0.05, 0.5]
         for samples, alpha in [(100, 0.05), (5000, 0.01)]]
# confseq counts deviations from p, in steps of (1 - p) and p.
values = confseq([("beta-binomial", h - (h + m) * p, p * (1 - p) * (h + m), p * (1 - p) * samples, p, 1 - p, alpha)
                  for h, m, p, samples, alpha in calls])
for call, value in zip(calls, values):
    case("confseq beta-binomial", call, value)

for control, experiment, c, e in [(1, 1, 0, 0), (1, 1, 2, 9), (1, 1, 40, 70), (95, 5, 40, 15), (95, 5, 400, 15),
                                  (10, 90, 3, 80), (1, 1, 10**9, 10**9 + 10**5)]:
    share = experiment / (control + experiment)
    a, b = 2 * share, 2 * (1 - share)
    case("arms differs", [control, experiment, c, e], ln_differs(a, b, e, c, share))
    case("arms better", [control, experiment, c, e], ln_below(a, b + 1, e, c, share))
    case("arms worse", [control, experiment, c, e], ln_below(b, a + 1, c, e, 1 - share))
    if c and e:
        for alpha in [0.05, 0.01]:
            ends = interval(a, b, e, c, alpha)
            for name, end in zip(["low", "high"], ends):
                case(f"arms ratio {name}", [control, experiment, c, e, alpha],
                     end / (1 - end) * mp.mpf(1 - share) / mp.mpf(share))

for weight, counts, proportions in [
    (100, [5050, 4950], [0.5, 0.5]), (100, [5300, 4700], [0.5, 0.5]), (50, [10, 20, 30], [1, 2, 3]),
    (200, [600, 310, 90], [0.6, 0.3, 0.1]), (1000, [10**6, 2 * 10**6 + 5000, 10], [1, 2, 1e-5]),
]:
    shares = np.array(proportions) / np.sum(proportions)
    prior, n = weight * shares, np.array(counts)
    value = (special.gammaln(prior.sum()) - special.gammaln(prior.sum() + n.sum())
             + np.sum(special.gammaln(prior + n) - special.gammaln(prior)) - np.sum(n * np.log(shares)))
    if n.sum() > 10**5:  # more digits than a double has
        total = mp.loggamma(mp.fsum(prior)) - mp.loggamma(mp.fsum(prior) + int(n.sum()))
        value = total + mp.fsum(mp.loggamma(mp.mpf(a) + int(k)) - mp.loggamma(a) - int(k) * mp.log(s)
                                for a, k, s in zip(prior, n, shares))
    case("mismatch", [weight, *counts, *proportions], value)

# --- events in time ----------------------------------------------------------------------------------------------

RATES = [(1, 1, 0, 0, 2), (1, 1, 5, 3, 2), (2.5, 0.5, 40, 10, 2), (3, 30, 2, 100, 0.1), (50, 25, 300, 100, 2),
         (1, 1, 10**9, 10**9 + 10**5, 1)]
for shape, beforehand, k, t, rate in RATES:
    after = gamma_kernel((mp.mpf(beforehand) + t) * rate, mp.mpf(shape) + k)
    before = gamma_kernel(mp.mpf(beforehand) * rate, shape)
    inputs = [shape, beforehand, k, t, rate]
    case("poisson differs", inputs, before - after)
    for name, upper in [("above", True), ("below", False)]:
        part = ln_gamma_tail(shape + k, (beforehand + t) * rate, upper) - ln_gamma_tail(shape, beforehand * rate, upper)
        case(f"poisson {name}", inputs, before - after + part)
for shape, beforehand, k, t in [(1, 1, 5, 3), (2.5, 0.5, 40, 10), (3, 30, 2, 100), (1, 1, 10**6, 10**3)]:
    for alpha in [0.05, 0.001]:
        f = lambda l: (gamma_kernel(beforehand * mp.exp(l), shape)
                       - gamma_kernel((beforehand + t) * mp.exp(l), shape + k) + mp.log(alpha))
        seen = mp.log(mp.mpf(k) / t)
        for name, side in [("low", -1), ("high", 1)]:
            far = mp.mpf(1)
            while f(seen + side * far) < 0:
                far *= 2
            l = mp.findroot(f, (seen, seen + side * far), solver="anderson", tol=1e-30, maxsteps=500)
            case(f"poisson interval {name}", [shape, beforehand, k, t, alpha], mp.exp(l))
calls = [(k, v, v_opt, alpha) for k, v in [(12, 5), (3, 10), (130, 100)] for v_opt in [5, 80] for alpha in [0.05, 0.01]]
for call, value in zip(calls, confseq([("gamma-poisson", k - v, v, v_opt, alpha) for k, v, v_opt, alpha in calls])):
    case("confseq gamma-poisson", call, value)

# --- means -------------------------------------------------------------------------------------------------------

for sigma, rho, total, n, mean in [(1, 10, 12, 40, 0), (2, 30, -55, 90, 0.1), (0.5, 5, 3000, 1000, 2.9), (1, 1, -900, 30, 0)]:
    s = mp.mpf(total) / sigma - n * mp.mpf(mean) / sigma
    z2, width = s * s / (n + mp.mpf(rho)), mp.log(rho / (n + mp.mpf(rho))) / 2
    case("mean differs", [sigma, rho, total, n, mean], width + z2 / 2)
    # The half-normal mixture, integrated numerically.
    f = lambda l: mp.exp(l * s - l * l * n / 2 - l * l * rho / 2) * 2 * mp.sqrt(rho / (2 * mp.pi))
    peak = max(s / (n + mp.mpf(rho)), 0)
    points = [0, *([peak] if peak else []), peak + 1, mp.inf] if s > 0 else [0, 1 / abs(s), 10 / abs(s), 1, mp.inf]
    case("mean above", [sigma, rho, total, n, mean], mp.log(mp.quad(f, points)))
for sigma, rho, total, n, alpha in [(1, 10, 12, 40, 0.05), (2, 30, -55, 90, 0.01)]:
    radius = mp.sqrt((n + mp.mpf(rho)) * (mp.log(1 + mp.mpf(n) / rho) + 2 * mp.log(1 / mp.mpf(alpha)))) / n
    case("mean interval high", [sigma, rho, total, n, alpha], sigma * radius + mp.mpf(total) / n)
for sigma, tau in [(1, 0.3), (3, 2)]:
    x = random.normal(0.4, sigma, 50)
    case("ville msprt", [sigma, tau, x.sum(), 50], MSPRT(0, sigma=sigma, tau=tau).fit(x).log_e_values_[-1])
calls = [(s, n, v_opt, alpha) for s in [-30, 5, 60] for n in [20, 400] for v_opt in [50, 1000] for alpha in [0.05, 0.01]]
for name in ["normal", "normal-one-sided"]:
    for call, value in zip(calls, confseq([(name, *call) for call in calls])):
        case("confseq " + name.replace("-", " ", 1).replace("one sided", "one-sided"), call, value)

for low, high, mean, alpha in [(0, 1, 0.3, 0.05), (0, 1000, 100, 0.01), (-1, 1, 0, 0.05)]:
    x = low + (high - low) * random.beta(0.6, 2.5, 60)
    for alternative in ["greater", "less", "two-sided"]:
        test = BettingTest(mean, (low, high), alternative, alpha).fit(x)
        case(f"ville betting {alternative}", [low, high, mean, alpha, *x], test.log_e_values_[-1])
    sequence = EmpiricalBernsteinCS((low, high), alpha).fit(x)
    case("ville empirical bernstein low", [low, high, alpha, *x], sequence.lower_[-1])
    case("ville empirical bernstein high", [low, high, alpha, *x], sequence.upper_[-1])

# --- quantiles ---------------------------------------------------------------------------------------------------

for p, tuned_for, tuned in [(0.5, 100, 0.05), (0.9, 1000, 0.05), (0.99, 1000, 0.01)]:
    rho = tuned_for * p * (1 - p) / (2 * np.log(1 / tuned) + np.log(1 + 2 * np.log(1 / tuned)))
    r = max(rho - p * (1 - p), 1e-3 * p * (1 - p))
    a, b = r / (1 - p), r / p
    for n in [20, 300, 4000]:
        for alpha in [0.05, 0.01]:
            hits = np.arange(n + 1)
            ln = (special.betaln(a + hits, b + n - hits) - special.betaln(a, b)
                  - hits * np.log(p) - (n - hits) * np.log1p(-p))
            kept = hits[ln < np.log(1 / alpha)]
            case("quantile rank low", [p, tuned_for, tuned, n, alpha], kept[0])
            case("quantile rank high", [p, tuned_for, tuned, n, alpha], kept[-1] + 1)

calls = []
for p in [0.5, 0.9]:
    for shift in [0, 0.3, 2]:
        for n1, n2 in [(30, 30), (60, 25)]:
            arms = np.r_[random.exponential(1, n1), shift + random.exponential(1, n2)].round(1)
            calls.append((p, 50, 0.05, n1, *arms))
for call, value in zip(calls, confseq([("quantile-ab", *call) for call in calls])):
    case("confseq quantile a/b p-value", call, value)

calls = [(alpha, m, t) for alpha in [0.1, 0.05, 0.025, 0.01, 0.005, 0.001] for m, t in [(1, 100), (100, 10000)]]
for call, value in zip(calls, confseq([("dkw", *call) for call in calls])):
    case("confseq dkw", call, value)
for n1, n2 in [(10, 12), (50, 30)]:
    arms = [random.exponential(1, n1).round(1), random.exponential(1.3, n2).round(1)]
    case("ks larger", [n1, *arms[0], *arms[1]], stats.ks_2samp(*arms, alternative="greater").statistic)
calls = [(p, t, alpha, from_) for p in [0.001, 0.2, 0.5, 0.9, 0.999] for t in [1, 100, 10**6] for alpha in [0.05, 0.001]
         for from_ in [10, 500]]
for call, value in zip(calls, confseq([("double-stitching", *call) for call in calls])):
    case("confseq double stitching", call, value)

# --- many, few, recovery -----------------------------------------------------------------------------------------

for size in [1, 2, 7, 30]:
    e = np.exp(random.normal(1, 3, size))
    case("ville mean", e, combine(e, "mean"))
    case("ville product", e, combine(e, "product"))
    for alpha in [0.05, 0.2]:
        for index, rejected in enumerate(ebh(e, alpha)):
            case("ville e-bh", [index, alpha, *e], rejected)

for hits, n in [(0, 10), (3, 100), (10, 10), (999, 1000), (123456, 10**6)]:
    for alpha in [0.05, 0.01]:
        low, high = proportion_confint(hits, n, alpha, method="wilson")
        case("statsmodels wilson low", [hits, n, alpha], low)
        case("statsmodels wilson high", [hits, n, alpha], high)

for n, censored in [(8, 0.3), (25, 0.1), (60, 0.5)]:
    times = random.weibull(1.5, n).round(1) + 0.1
    seen = random.random(n) > censored
    signed = np.where(seen, times, -times)
    for alpha in [0.05, 0.1]:
        fit = KaplanMeierFitter(alpha=alpha).fit(times, seen)
        band = fit.confidence_interval_
        for time in np.quantile(times[seen], [0.2, 0.5, 0.8]).round(2):
            row = band[band.index <= time].iloc[-1]
            case("lifelines survival", [time, *signed], fit.survival_function_at_times(time).iloc[0])
            case("lifelines survival low", [time, alpha, *signed], row.iloc[0])
            case("lifelines survival high", [time, alpha, *signed], row.iloc[1])
        case("lifelines median", signed, fit.median_survival_time_)
        ends = median_survival_times(band).iloc[0]
        for name, end in zip(["low", "high"], ends):
            case(f"lifelines median {name}", [alpha, *signed], end if np.isfinite(end) else -1)

# --- samples needed ----------------------------------------------------------------------------------------------

def first(enough):
    low, high = 0, 1
    while not enough(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


for bound, alpha in [(0.01, 0.01), (0.05, 0.05), (0.001, 0.01), (0.5, 0.001)]:
    enough = -mp.log(alpha)
    shown = lambda n, rate: ln_below(1, 1, mp.mpf(rate) * n, n - mp.mpf(rate) * n, bound) >= enough
    case("needed fewest", [bound, alpha], first(lambda n: shown(n, 0)))
    case("needed at rate", [bound, alpha, bound / 4], first(lambda n: shown(n, bound / 4)))

json.dump(golden, sys.stdout, indent=0, separators=(",", ":"))
print()
