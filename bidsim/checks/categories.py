"""C10: values of categorical features that a model has never seen, as far as its format tells.

A hashed model keeps weight 0 exactly where no training row fell; a scikit-learn encoder lists its categories.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bidsim.arrays import values_of
from bidsim.checks.catalogue import Outcome, found, ok, skipped
from bidsim.models import Bundle, Feature, HashedLogisticRegression
from bidsim.models.columns import Columns, HashCache
from bidsim.models.manifest import HashedHead, SkopsHead
from bidsim.models.sandbox import categories_in_child
from bidsim.replay.engine import Engine
from bidsim.replay.plan import Plan

Seen = Callable[[pa.RecordBatch], NDArray[np.bool_]]
MOST_VALUES = 100_000
# Below this share of rows new values are everyday life.
TOLERATED = 0.01


def unseen_categories(engine: Engine, plan: Plan, bundles: Mapping[str, Bundle], log: str) -> Outcome:
    """bundles: of each policy with a model, by name. log: relation with a column "feature <i>" for each of plan.features."""
    if not bundles:
        return skipped("C10", "no policy has a model file")
    shares: dict[str, dict[str, float]] = {}
    judged = False
    for name, bundle in bundles.items():
        for feature, known in _known(bundle):
            if feature not in plan.features:
                continue
            judged = True
            place = list(plan.features).index(feature)
            total = new = 0
            for batch in engine.stream(
                f'select "feature {place}" as v, count(*) as n from {log} group by v order by n desc, v limit {MOST_VALUES}'
            ):
                counts = values_of(batch.column("n"))
                seen = known(pa.RecordBatch.from_arrays([batch.column("v")], [feature]))
                total, new = total + int(counts.sum()), new + int(counts[~seen].sum())
            share = new / total if total else 0.0
            if share > TOLERATED:
                shares.setdefault(name, {})[feature] = share
    if not judged:
        return skipped("C10", "the models' formats don't tell which categories they have seen")
    if not shares:
        return ok("C10")
    listed = [(s, f'{f} of "{name}" ({s:.1%} of rows)') for name, of in shares.items() for f, s in of.items()]
    listed.sort(key=lambda pair: (-pair[0], pair[1]))
    return found(
        "C10",
        "error" if listed[0][0] > 0.2 else "warning",
        f"Values that the model never saw in training: {', '.join(text for _, text in listed[:5])}.",
        "Check that the log writes the feature as the training data did (ids as numbers or text, case, padding), and that "
        "the model is not older than the campaigns it bids for.",
        shares=shares,
    )


def _known(bundle: Bundle) -> Iterator[tuple[str, Seen]]:
    """(log column, function from a batch with that column to whether each value was seen) of single categorical features,
    by the first head. Values are spelled as the model has them: the id 7 may stand in the log as 7.0 or "7"."""
    manifest = bundle.manifest
    head = manifest.order[0]
    entry = manifest.heads[head]
    kinds = {f.name: f for f in manifest.features}
    if isinstance(entry, HashedHead):
        model = HashedLogisticRegression.load(
            entry, manifest.features, bundle.payload(entry.payloads[0]), head=head, file=str(bundle.path)
        )
        for name in entry.spec.features:
            if kinds[name].type == "categorical" and _dense(model):
                yield kinds[name].source, _by_weight(model, name)
        return
    if not isinstance(entry, SkopsHead):
        return
    for name, categories in categories_in_child(bundle.data, str(bundle.path)):
        if name in kinds and kinds[name].type == "categorical":
            yield kinds[name].source, _by_text(kinds[name], set(categories))


def _dense(model: HashedLogisticRegression) -> bool:
    """Whether weight 0 means unseen: a model trained for few weights (L1) has zeros of its own."""
    return bool(model.weights.any())


def _by_weight(model: HashedLogisticRegression, name: str) -> Seen:
    def seen(batch: pa.RecordBatch) -> NDArray[np.bool_]:
        term = Columns(batch, model.features, cache=HashCache(0), file="").term((name,))
        index = (term.hashes & np.uint64((1 << model.spec.bits) - 1)).astype(np.int64)
        weights = model.weights[index] != 0
        return np.asarray(weights if term.codes is None else weights[term.codes])

    return seen


def _by_text(feature: Feature, known: set[str]) -> Seen:
    def seen(batch: pa.RecordBatch) -> NDArray[np.bool_]:
        codes, values = Columns(batch, (feature,), cache=HashCache(0), file="").category(feature.name)
        return np.array([value in known for value in values], dtype=bool)[codes]

    return seen


def log_of_features(plan: Plan) -> str:
    """The rows of the scenario with each model feature as the column "feature <i>"."""
    columns = ", ".join(f'{sql} as "feature {i}"' for i, sql in enumerate(plan.features.values()))
    where = " and ".join(f"coalesce({c}, false)" for c in plan.conditions) or "true"
    join = ""
    if plan.campaigns is not None:
        c = plan.campaigns
        join = f" left join {c.reader} as c on cast(c.{c.key} as varchar) = cast({plan.roles['campaign']} as varchar)"
    return f"(select {columns} from {plan.source.reader()} as s{join} where {where})"
