"""Losses: formulas, finite differences, errors."""

import gradus
import numpy as np
import pytest
from gradus import losses

NAMES = [name for name in losses.__all__ if name not in ("Loss", "LossResult")]


def batch(rows=16, dim=6, classes=4, seed=0, dtype=np.float64):
    generator = np.random.default_rng(seed)
    values = generator.standard_normal((rows, dim))
    labels = np.arange(rows) % classes
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype(dtype), labels


def arguments(entry, dtype=np.float64):
    """Arguments that a loss accepts."""
    embeddings, labels = batch(dtype=dtype)
    more = {}
    if entry["accepts"]["references"] == "required":
        references, reference_labels = batch(seed=1, dtype=dtype)
        more = {"reference_embeddings": references, "reference_labels": reference_labels}
    if entry["accepts"]["mined"] == "required":
        more["mined"] = gradus.miners.BatchHard()(embeddings, labels)
    return (embeddings, labels), more


def test_every_loss_of_the_registry_has_a_class():
    assert len(NAMES) == len(gradus._gradus.losses()) > 40
    assert {"MultiSimilarity", "ProxyAnchor", "TripletMargin", "NtXent", "Arcface"} <= set(NAMES)
    for name in NAMES:
        assert getattr(losses, name).__doc__ and issubclass(getattr(losses, name), losses.Loss)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_of_every_loss(name):
    entry = losses._REGISTRY[name]
    # A new one for each call: some keep running statistics.
    make = getattr(losses, name)
    given, more = arguments(entry)
    value, gradient = make()(*given, **more)
    assert isinstance(value, float) and np.isfinite(value)
    assert gradient.dtype == np.float64 and gradient.shape == given[0].shape and np.isfinite(gradient).all()
    assert make()(*given, **more)[0] == value
    single, more = arguments(entry, np.float32)
    near, rounded = make()(*single, **more)
    assert rounded.dtype == np.float32
    assert near == pytest.approx(value, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_slopes(name):
    entry = losses._REGISTRY[name]
    if entry["holds_weights"]:
        pytest.skip("its gradient takes weights for constants")
    make = getattr(losses, name)
    (embeddings, labels), more = arguments(entry)
    gradient = make()(embeddings, labels, **more)[1]
    direction = np.random.default_rng(7).standard_normal(embeddings.shape)
    step = 1e-6
    ahead, behind = (make()(embeddings + sign * step * direction, labels, **more)[0] for sign in (1, -1))
    slope = (gradient * direction).sum()
    assert slope == pytest.approx((ahead - behind) / (2 * step), rel=2e-4, abs=2e-6)


def test_triplet_margin_is_its_formula():
    embeddings, labels = batch()
    triplets = [
        max(0.0, np.linalg.norm(a - p) - np.linalg.norm(a - n) + 0.2)
        for i, a in enumerate(embeddings)
        for j, p in enumerate(embeddings)
        for k, n in enumerate(embeddings)
        if i != j and labels[i] == labels[j] and labels[i] != labels[k]
    ]
    above = [value for value in triplets if value > 0]
    value, _ = losses.TripletMargin(margin=0.2)(embeddings, labels)
    assert value == pytest.approx(np.mean(above), abs=1e-9)


def test_settings_are_keywords():
    loss = losses.MultiSimilarity(beta=40, distance={"lp": {"p": 1}}, reducer="mean", embedding_regularizer=None)
    assert loss.name == "multi-similarity" and loss.settings["beta"] == 40.0
    assert loss.settings["distance"] == {"lp": losses.MultiSimilarity(distance="lp").settings["distance"]["lp"] | {"p": 1.0}}
    embeddings, labels = batch()
    assert losses.MultiSimilarity(beta=40)(embeddings, labels)[0] != losses.MultiSimilarity(beta=2)(embeddings, labels)[0]
    for make, message in [
        (lambda: losses.MultiSimilarity(bta=40), "did you mean `beta`"),
        (lambda: losses.MultiSimilarity(beta=-1), "beta"),
        (lambda: losses.MultiSimilarity(beta="forty"), "forty"),
        (lambda: losses.MultiSimilarity(beta=object()), "type object"),
        (lambda: losses.MultiSimilarity(distance="euclid"), "distance|variant"),
        (lambda: losses.Loss("multi-similarty", {}), "did you mean `multi-similarity`"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_proxies_are_parameters():
    embeddings, labels = batch()
    loss = losses.ProxyAnchor(classes=5, seed=3)
    assert loss.parameters is None
    result = loss.evaluate(embeddings, labels)
    proxies = loss.parameters
    assert proxies.shape == result.parameters_gradient.shape == (5, 6)
    step = 1e-6
    direction = np.random.default_rng(2).standard_normal(proxies.shape)
    values = []
    for sign in (1, -1):
        loss.parameters = proxies + sign * step * direction
        values.append(loss(embeddings, labels)[0])
    slope = (result.parameters_gradient * direction).sum()
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-5)
    loss.parameters = proxies
    assert loss(embeddings, labels)[0] == pytest.approx(result.value, abs=1e-12)
    assert sum(result.terms.values()) == pytest.approx(result.value)
    with pytest.raises(ValueError, match="5 classes"):
        loss(embeddings, labels + 2)
    with pytest.raises(ValueError, match="class numbers from 0, not strings"):
        loss(embeddings, [f"class {label}" for label in labels])
    with pytest.raises(ValueError, match=r"\[5, 6\]"):
        loss.parameters = proxies[:4]
    with pytest.raises(ValueError, match="width 6, but the embeddings have width 5"):
        loss(embeddings[:, :5], labels)
    with pytest.raises(ValueError, match="no parameters"):
        losses.Contrastive().parameters = proxies


def test_the_same_seed_gives_the_same_proxies_in_both_precisions():
    embeddings, labels = batch()
    double, single = losses.ProxyAnchor(seed=1), losses.ProxyAnchor(seed=1)
    double(embeddings, labels)
    single(embeddings.astype(np.float32), labels)
    assert double.parameters.dtype == np.float64 and single.parameters.dtype == np.float32
    assert np.allclose(double.parameters, single.parameters, atol=1e-7)


def test_references_and_mined_tuples():
    embeddings, labels = batch()
    references, reference_labels = batch(24, seed=5)
    loss = losses.Contrastive()
    result = loss.evaluate(embeddings, labels, reference_embeddings=references, reference_labels=reference_labels)
    assert result.reference_gradient.shape == references.shape
    assert loss.evaluate(embeddings, labels).reference_gradient is None
    anchors, positives, negatives = gradus.miners.BatchHard()(embeddings, labels)
    mined = losses.TripletMargin(margin=1.0)(embeddings, labels, mined=(anchors, positives, negatives))[0]
    length = lambda a, b: np.linalg.norm(embeddings[a] - embeddings[b], axis=1)
    costs = np.maximum(0.0, length(anchors, positives) - length(anchors, negatives) + 1.0)
    assert mined == pytest.approx(costs[costs > 0].mean(), abs=1e-9)
    for mined, message in [
        ((anchors, positives), "2 arrays"),
        ((anchors, positives, negatives + 100), "out of range"),
        ((anchors, positives, negatives[:-1]), "differ in number"),
        ((anchors, positives, negatives * 0.5), "integers"),
    ]:
        with pytest.raises(ValueError, match=message):
            loss(embeddings, labels, mined=mined)


def test_every_value_can_be_looked_at():
    embeddings, labels = batch()
    loss = losses.TripletMargin(reducer="do-nothing")
    with pytest.raises(ValueError, match="unreduced"):
        loss(embeddings, labels)
    (term,) = loss.unreduced(embeddings, labels).values()
    assert term["unit"] and len(term["positions"]) == len(term["values"]) == len(term["weights"])
    above = term["values"][term["values"] > 0]
    assert above.mean() == pytest.approx(losses.TripletMargin()(embeddings, labels)[0])


def test_labels_of_losses():
    embeddings, labels = batch()
    expected = losses.Contrastive()(embeddings, labels)[0]
    assert losses.Contrastive()(embeddings, [f"class {label}" for label in labels])[0] == expected
    assert losses.Contrastive()(embeddings, labels - 3)[0] == expected
    several = np.eye(4, dtype=int)[labels]
    assert losses.Contrastive()(embeddings, several, label_kind="multi-label")[0] == pytest.approx(expected)
    with pytest.raises(ValueError, match="looks at labels"):
        losses.Contrastive()(embeddings)
    with pytest.raises(ValueError, match="15 labels for 16 embeddings"):
        losses.Contrastive()(embeddings, labels[:-1])
    embeddings[3, 2] = np.nan
    with pytest.raises(ValueError, match="row 3 holds a value that is not finite"):
        losses.Contrastive()(embeddings, labels)


def test_a_batch_without_pairs_costs_nothing():
    embeddings, _ = batch(4)
    value, gradient = losses.TripletMargin()(embeddings, np.zeros(4, dtype=int))
    assert value == 0.0 and not gradient.any()
