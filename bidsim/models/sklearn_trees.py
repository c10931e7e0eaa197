"""Trees of scikit-learn pipelines, checked node by node before they predict.

scikit-learn follows the numbers of children and features in a tree without looking whether they exist, so that a forged
or damaged file would have it read, or loop in, foreign memory. Here every tree of a loaded pipeline is found and held
to what its own training makes: children come after their parent, features are among those the estimator checks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

TYPES = (
    "sklearn.tree._tree.Tree",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
)
_NAMES = tuple(name.rpartition(".")[2] for name in TYPES)
# Ensembles that check the number of features once and hand rows to their trees unchecked.
_UNCHECKED = ("sklearn.ensemble._forest", "sklearn.ensemble._gb")
MAX_DEPTH = 200


def count_declared(schema: Any) -> int:
    """How many trees the schema of a skops file declares."""
    found: set[object] = set()
    stack = [schema]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            if node.get("__class__") in _NAMES:
                found.add(repr(node.get("__id__", id(node))))
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)
    return len(found)


def check_trees(pipeline: Any, declared: int) -> None:
    """Raises ValueError where a tree is not as training makes it, or is not where trees are."""
    found: dict[int, Any] = {}
    for tree, features in _trees(pipeline, None, set(), 0):
        found[id(tree)] = tree
        if type(tree).__name__ == "Tree":
            _check_tree(tree, features)
        else:
            _check_predictor(tree, features)
    if len(found) < declared:
        raise ValueError(f"{declared} trees are in the file, and {len(found)} where an estimator has its trees")


def _trees(node: Any, features: Any, seen: set[tuple[int, Any]], depth: int) -> Iterator[tuple[Any, Any]]:
    """Every tree below a node, with the number of features that its estimator lets through."""
    if depth > MAX_DEPTH:
        raise ValueError("its parts are nested too deeply")
    name = type(node).__name__
    if name in _NAMES and type(node).__module__.startswith("sklearn."):
        yield node, features
        return
    if isinstance(node, str | bytes | int | float | type(None)) or (id(node), features) in seen:
        return
    seen.add((id(node), features))
    if isinstance(node, np.ndarray):
        parts = list(node.ravel()) if node.dtype == object else []
    elif isinstance(node, dict):
        parts = list(node.values())
    elif isinstance(node, list | tuple | set | frozenset):
        parts = list(node)
    else:
        parts = list(getattr(node, "__dict__", {}).values())
        own = getattr(node, "__dict__", {}).get("n_features_in_")
        module = type(node).__module__
        rounds = getattr(node, "estimators_", None)
        if module == "sklearn.ensemble._gb" and getattr(rounds, "shape", (0, 1))[1:] != (1,):
            raise ValueError("it has several trees a round, which a model of two classes has not")
        if module in _UNCHECKED:
            features = own
        elif own is not None:
            # A tree of an ensemble that checks for it must know no feature beyond the ensemble's.
            features = min(own, features) if module == "sklearn.tree._classes" and features is not None else own
    for part in parts:
        yield from _trees(part, features, seen, depth + 1)


def _check_tree(tree: Any, features: Any) -> None:
    if not 1 <= tree.node_count <= tree.capacity:
        raise ValueError("a tree has fewer nodes than it says")
    _check_nodes(tree.children_left != -1, tree.children_left, tree.children_right, tree.feature, features)


def _check_predictor(tree: Any, features: Any) -> None:
    nodes = tree.nodes
    if not isinstance(nodes, np.ndarray) or nodes.ndim != 1 or not len(nodes):
        raise ValueError("a tree has no nodes")
    if nodes["is_categorical"].any():
        raise ValueError("it splits by categories, which bidsim can't check; encode them in the pipeline")
    inner = nodes["is_leaf"] == 0
    left, right, feature = (nodes[name].astype(np.int64) for name in ("left", "right", "feature_idx"))
    _check_nodes(inner, left, right, feature, features)


def _check_nodes(inner: Any, left: Any, right: Any, feature: Any, features: Any) -> None:
    if not isinstance(features, int) or isinstance(features, bool):
        raise ValueError("a tree belongs to no estimator that knows its number of features")
    place = np.arange(len(inner))
    for child in (left, right):
        if (inner & ((child <= place) | (child >= len(inner)))).any():
            raise ValueError("a tree's node has a child that is no later node")
    if (inner & ((feature < 0) | (feature >= features))).any():
        raise ValueError("a tree splits by a feature that the estimator has not")
