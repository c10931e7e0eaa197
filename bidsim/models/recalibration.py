"""Corrections of predicted probabilities that travel in a bundle, and the fitting of two of them.

A model trained on down-sampled negatives over-predicts by a known formula; Platt's logistic curve and an isotonic one
are fitted on labelled rows that the model was not trained on, and not on the window that will be judged.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from bidsim.errors import ModelError
from bidsim.models.manifest import Downsampling, Isotonic, Platt

Floats = NDArray[np.float64]
EPSILON = 1e-12
MAX_POINTS = 2000
MOST_STEP = 5.0  # by which a step of the fit may move any row's log odds


def recalibrate(p: Floats, steps: Iterable[Downsampling | Platt | Isotonic]) -> Floats:
    """Apply corrections one after the other; shape kept. What is NaN or outside [0, 1] stays undefined (NaN)."""
    for step in steps:
        p = np.where((p >= 0) & (p <= 1), p, np.nan)
        if isinstance(step, Downsampling):
            p = p / (p + (1 - p) / step.rate)
        elif isinstance(step, Platt):
            with np.errstate(over="ignore"):
                p = 1 / (1 + np.exp(-(step.slope * _logit(p) + step.intercept)))
        else:
            p = np.where(np.isnan(p), p, np.interp(p, step.predicted, step.calibrated))  # one point takes NaN for any
    return p


def fit_platt(p: Floats, y: Floats, weights: Floats) -> Platt:
    """Slope and intercept of largest likelihood on the logit of p (Platt 1999, with labels as they are).

    p, y, weights: shape (rows,); y in [0, 1]. Raises ModelError where there is nothing to fit.
    """
    _check(y, weights)
    x = _logit(p)
    slope, intercept = 1.0, 0.0

    def loss(a: float, b: float) -> float:
        z = a * x + b
        return float(weights @ (np.logaddexp(0, z) - y * z))

    best = loss(slope, intercept)
    for _ in range(100):  # Newton's method with halving; the loss is convex
        with np.errstate(over="ignore"):
            q = 1 / (1 + np.exp(-(slope * x + intercept)))
        gradient = np.array([weights @ ((q - y) * x), weights @ (q - y)])
        h = weights * q * (1 - q)
        hessian = np.array([[h @ (x * x), h @ x], [h @ x, h.sum()]])
        hessian += np.eye(2) * 1e-12 * max(float(np.trace(hessian)), 1e-300)
        step = np.linalg.solve(hessian, gradient)
        # Where predictions are 0 and 1 the loss has hardly a curvature, and a whole step would end anywhere.
        scale = min(1.0, MOST_STEP / max(float(np.abs(step[0] * x + step[1]).max()), 1e-300))
        while scale > 1e-9 and loss(slope - scale * step[0], intercept - scale * step[1]) > best:
            scale /= 2
        slope, intercept = slope - scale * float(step[0]), intercept - scale * float(step[1])
        now = loss(slope, intercept)
        if best - now <= 1e-13 * abs(best):
            break
        best = now
    if slope <= 0:
        raise ModelError(
            "the predictions rank the calibration rows backwards (Platt's slope is not above 0); the model or the "
            "label is wrong, recalibration can't mend that"
        )
    return Platt(slope=slope, intercept=intercept)


def fit_isotonic(p: Floats, y: Floats, weights: Floats) -> Isotonic:
    """The non-decreasing curve of least squares (pool adjacent violators), thinned to at most 2,000 points.

    p, y, weights: shape (rows,). Raises ModelError where there is nothing to fit.
    """
    from sklearn.isotonic import IsotonicRegression

    _check(y, weights)
    curve = IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(p, y, sample_weight=weights)
    predicted = np.asarray(curve.X_thresholds_, dtype=np.float64)
    calibrated = np.asarray(curve.y_thresholds_, dtype=np.float64)
    if len(predicted) > MAX_POINTS:
        kept = np.unique(np.linspace(0, len(predicted) - 1, MAX_POINTS).round().astype(int))
        predicted, calibrated = predicted[kept], calibrated[kept]
    return Isotonic(predicted=tuple(predicted.tolist()), calibrated=tuple(calibrated.tolist()))


def _logit(p: Floats) -> Floats:
    clipped = np.clip(p, EPSILON, 1 - EPSILON)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))


def _check(y: Floats, weights: Floats) -> None:
    positive = float(weights @ y)
    if not 0 < positive < float(weights.sum()):
        raise ModelError(
            "the calibration rows have no row of one of the two labels, so nothing can be fitted; take a longer window"
        )
