"""Miners against plain loops."""

import gradus
import numpy as np
import pytest
from gradus import miners

NAMES = [name for name in miners.__all__ if name != "Miner"]


def batch(rows=24, dim=5, classes=4):
    values = np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)
    return values, np.arange(rows) % classes


def test_batch_hard_is_the_farthest_positive_and_the_nearest_negative():
    values, labels = batch()
    unit = values.astype(np.float64) / np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
    distance = np.linalg.norm(unit[:, None] - unit[None], axis=2)
    same = labels[:, None] == labels[None]
    positive = np.where(same & ~np.eye(24, dtype=bool), distance, -1.0).argmax(axis=1)
    negative = np.where(same, 9.0, distance).argmin(axis=1)
    found = miners.BatchHard()(values, labels)
    assert all(column.dtype == np.int64 for column in found)
    for column, expected in zip(found, (np.arange(24), positive, negative)):
        assert np.array_equal(column, expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_miner_chooses_pairs_or_triplets(name):
    values, labels = batch()
    if name == "EmbeddingsAlreadyPackagedAsTriplets":
        labels = np.tile([0, 0, 1], 8)
    miner = getattr(miners, name)()
    found = miner(values, labels)
    assert len(found) in (3, 4)
    assert all(np.array_equal(a, b) for a, b in zip(found, miner(values, labels)))
    if name in ("EmbeddingsAlreadyPackagedAsTriplets", "RhoRegularization"):
        return  # The first takes rows as they come, the second swaps positives and negatives now and then.
    if len(found) == 3:
        anchors, positives, negatives = found
        assert (labels[anchors] == labels[positives]).all() and (labels[anchors] != labels[negatives]).all()
    else:
        anchors, positives, others, negatives = found
        assert (labels[anchors] == labels[positives]).all() and (labels[others] != labels[negatives]).all()


def test_settings_seeds_references_and_errors():
    values, labels = batch()
    miner = miners.PairMargin(pos_margin=0.1, neg_margin=1.2)
    assert miner.settings["pos-margin"] == 0.1 and miner.name == "pair-margin"
    assert len(miner(values, labels)[0]) >= len(miners.PairMargin(pos_margin=0.9)(values, labels)[0])
    weighted = miners.DistanceWeighted()
    draws = [weighted(values, labels, seed=seed)[2] for seed in (1, 1, 2)]
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    others = np.random.default_rng(1).standard_normal((40, 5))
    found = miners.BatchHard()(values, labels, others, np.arange(40) % 4)
    assert max(found[1].max(), found[2].max()) >= 24
    with pytest.raises(ValueError, match="did you mean `pos-margin`"):
        miners.PairMargin(pos_margim=0.1)
    with pytest.raises(ValueError, match="together"):
        miner(values, labels, others)
    with pytest.raises(ValueError, match="5 wide and reference_embeddings 4"):
        miner(values, labels, others[:, :4], np.arange(40) % 4)
    values[2, 1] = np.inf
    with pytest.raises(ValueError, match="row 2"):
        miner(values, labels)
