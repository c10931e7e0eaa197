"""LightGBM reads its rows again instead of having them held, and models that grow by rounds are joined as text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightgbm
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bidsim.training.tree_rows import RowReader, joined

PARAMS = {"objective": "binary", "verbosity": -1, "num_leaves": 5, "min_data_in_leaf": 5}


class Stream:
    """Rows in matrices of uneven size; counts how often it is opened."""

    def __init__(self, matrix: Any, sizes: tuple[int, ...] = (7, 1, 40)) -> None:
        self.matrix, self.sizes, self.opened = matrix, sizes, 0

    def __call__(self) -> Iterator[Any]:
        self.opened += 1
        start = n = 0
        while start < len(self.matrix):
            size = self.sizes[n % len(self.sizes)]
            yield self.matrix[start : start + size]
            start, n = start + size, n + 1


def data(rows: int = 3000) -> tuple[Any, Any]:
    draw = np.random.default_rng(5)
    x = draw.normal(size=(rows, 3))
    x[:, 2] = draw.integers(0, 6, rows)
    x[draw.random(rows) < 0.1, 0] = np.nan
    y = (draw.random(rows) < 1 / (1 + np.exp(-np.nan_to_num(x[:, 0]) - np.sin(x[:, 2])))).astype(np.float64)
    return x, y


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_row_and_any_slice_is_that_of_the_whole(draw: Any) -> None:
    matrix = np.arange(200.0).reshape(100, 2)
    reader = RowReader(100, Stream(matrix))
    assert len(reader) == 100
    for _ in range(6):
        a = draw.draw(st.integers(0, 99))
        b = draw.draw(st.integers(a + 1, 100))
        np.testing.assert_array_equal(reader[a:b], matrix[a:b])
        np.testing.assert_array_equal(reader[a], matrix[a])


def test_the_rows_are_read_twice_and_give_the_trees_of_a_matrix() -> None:
    x, y = data()
    stream = Stream(x)
    lightgbm.Sequence.register(RowReader)
    read = lightgbm.Dataset(RowReader(len(x), stream), y, categorical_feature=[2], params=PARAMS)
    held = lightgbm.Dataset(x, y, categorical_feature=[2], params=PARAMS)
    models = [lightgbm.train(PARAMS, of, 10) for of in (read, held)]
    assert stream.opened == 2
    np.testing.assert_array_equal(models[0].predict(x), models[1].predict(x))


def test_a_joined_model_scores_the_sum_and_is_what_going_on_from_a_model_gives() -> None:
    x, y = data()
    dataset = lightgbm.Dataset(x, y, free_raw_data=False, params=PARAMS)
    text = ""
    scores = np.zeros(len(x))
    for number in range(3):  # twelve trees: numbers of one digit and of two
        if number:
            dataset.set_init_score(scores)
        more = lightgbm.train(PARAMS, dataset, 4)
        text = joined(text, more.model_to_string())
        scores += more.predict(x, raw_score=True)
    whole = lightgbm.Booster(model_str=text)
    assert whole.num_trees() == 12
    np.testing.assert_allclose(whole.predict(x, raw_score=True), scores, rtol=1e-12, atol=1e-12)
    again = lightgbm.Booster(model_str=whole.model_to_string())
    np.testing.assert_array_equal(again.predict(x), whole.predict(x))
    usual = None
    for _ in range(3):
        usual = lightgbm.train(PARAMS, lightgbm.Dataset(x, y, free_raw_data=False, params=PARAMS), 4, init_model=usual)
    assert usual is not None
    np.testing.assert_allclose(whole.predict(x), usual.predict(x), rtol=1e-9)


def test_the_sizes_that_the_text_tells_are_those_of_its_trees() -> None:
    x, y = data(400)
    text = lightgbm.train(PARAMS, lightgbm.Dataset(x, y, params=PARAMS), 11).model_to_string()
    one = lightgbm.train(PARAMS, lightgbm.Dataset(x, y, params=PARAMS), 1).model_to_string()
    first = text.index("Tree=0")
    sizes = [int(n) for n in text[:first].split("tree_sizes=")[1].split()]
    assert sum(sizes) == len(text[first : text.index("end of trees")])
    made = joined(text, one)
    first = made.index("Tree=0")
    sizes = [int(n) for n in made[:first].split("tree_sizes=")[1].split()]
    assert len(sizes) == 12
    assert sum(sizes) == len(made[first : made.index("end of trees")])
    assert made.count("Tree=11\n") == 1
    assert joined("", one) == one


def test_a_model_without_trees_adds_nothing() -> None:
    x, y = data(400)
    text = lightgbm.train(PARAMS, lightgbm.Dataset(x, y, params=PARAMS), 2).model_to_string()
    none = text[: text.index("Tree=0")] + text[text.index("end of trees") :]
    assert lightgbm.Booster(model_str=joined(text, none)).num_trees() == 2
