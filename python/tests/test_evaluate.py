"""Measures against plain loops in NumPy."""

import math

import gradus
import numpy as np
import pytest


def batch(rows=120, dim=9, classes=13, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    embeddings = generator.standard_normal((classes, dim))[labels] + 1.5 * generator.standard_normal((rows, dim))
    return embeddings.astype(np.float32), labels


def naive(queries, query_labels, gallery=None, gallery_labels=None):
    """Recall@1, Recall@4, MAP@R and R-precision by their definitions, lone queries counted as misses."""
    same = gallery is None
    gallery, gallery_labels = (queries, query_labels) if same else (gallery, gallery_labels)
    unit = lambda rows: rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    similarity = unit(queries) @ unit(gallery).T
    sums = {"recall@1": 0.0, "recall@4": 0.0, "map@r": 0.0, "r_precision": 0.0}
    for query, row in enumerate(similarity):
        order = [at for at in np.lexsort((np.arange(len(row)), -row)) if not (same and at == query)]
        right = [gallery_labels[at] == query_labels[query] for at in order]
        relevant = sum(right)
        if relevant == 0:
            continue
        sums["recall@1"] += right[0]
        sums["recall@4"] += any(right[:4])
        sums["r_precision"] += sum(right[:relevant]) / relevant
        hits = 0
        for rank in range(relevant):
            hits += right[rank]
            sums["map@r"] += right[rank] * hits / (rank + 1) / relevant
    return {name: total / len(queries) for name, total in sums.items()}


def test_numbers_equal_their_definitions():
    embeddings, labels = batch()
    labels[0] = 99
    found = gradus.evaluate(embeddings, labels, at=[1, 4])
    for name, expected in naive(embeddings, labels).items():
        assert found[name] == pytest.approx(expected, abs=1e-9), name
    assert (found["queries"], found["lone_queries"], found["classes"]) == (120, 1, 14)
    dropped = gradus.evaluate(embeddings, labels, lone_queries="drop")
    assert dropped["recall@1"] == pytest.approx(found["recall@1"] * 120 / 119, abs=1e-12)


def test_a_gallery_is_searched_instead_of_the_queries():
    queries, query_labels = batch(40, seed=1)
    gallery, gallery_labels = batch(90, seed=2)
    found = gradus.evaluate(queries, query_labels, gallery=gallery, gallery_labels=gallery_labels, at=[1, 4])
    for name, expected in naive(queries, query_labels, gallery, gallery_labels).items():
        assert found[name] == pytest.approx(expected, abs=1e-9), name
    with pytest.raises(ValueError, match="gallery is given without gallery_labels"):
        gradus.evaluate(queries, query_labels, gallery=gallery)


def test_short_forms_are_the_same_numbers():
    embeddings, labels = batch()
    found = gradus.evaluate(embeddings, labels, at=3)
    assert gradus.recall_at_k(embeddings, labels, 3) == found["recall@3"]
    assert gradus.map_at_r(embeddings, labels) == found["map@r"]
    assert type(gradus.recall_at_k(embeddings, labels)) is float


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows.astype(np.float64),
        lambda rows: np.asfortranarray(rows),
        lambda rows: np.repeat(rows, 2, axis=0)[::2],
        lambda rows: np.hstack([rows, rows])[:, : rows.shape[1]],
        lambda rows: rows.astype(">f4"),
        lambda rows: rows.tolist(),
    ],
)
def test_every_floating_point_layout_gives_the_same_numbers(form):
    embeddings, labels = batch()
    assert gradus.evaluate(form(embeddings), labels) == gradus.evaluate(embeddings, labels)


def test_half_precision_is_read_as_it_is():
    embeddings, labels = batch()
    half = embeddings.astype(np.float16)
    assert gradus.evaluate(half, labels) == gradus.evaluate(half.astype(np.float32), labels)


def test_a_read_only_array_is_borrowed_and_left_alone():
    embeddings, labels = batch()
    before = embeddings.copy()
    embeddings.flags.writeable = False
    gradus.evaluate(embeddings, labels, measures="all")
    assert np.array_equal(before, embeddings)


def test_labels_of_any_kind_give_the_same_numbers():
    embeddings, labels = batch()
    expected = gradus.evaluate(embeddings, labels)
    names = np.array([f"class {label:02}" for label in labels])
    for form in [
        labels.astype(np.int8),
        labels.astype(np.uint64),
        labels.tolist(),
        labels - 7,
        labels * 10**12,
        names,
        names.astype(object),
        names.tolist(),
    ]:
        assert gradus.evaluate(embeddings, form) == expected


def test_classes_keep_their_names():
    embeddings, labels = batch()
    names = np.array(["heron", "wren", "owl"])[labels % 3]
    found = gradus.evaluate(embeddings, names, per_class=True)
    assert set(found["per_class"]) == {"heron", "wren", "owl"}
    whole = sum(one["queries"] * one["recall@1"] for one in found["per_class"].values()) / len(names)
    assert whole == pytest.approx(found["recall@1"])
    numbers = gradus.evaluate(embeddings, labels, per_class=True)["per_class"]
    assert set(numbers) == set(labels.tolist())


def test_several_labels_per_row():
    embeddings, _ = batch(30)
    generator = np.random.default_rng(3)
    several = generator.integers(0, 2, (30, 5))
    found = gradus.evaluate(embeddings, several, label_kind="multi-label", measures="recall@1")
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -2.0)
    similarity[:, several.sum(axis=1) == 0] = -2.0
    right = [(several[row] & several[nearest]).any() for row, nearest in enumerate(similarity.argmax(axis=1))]
    assert found["recall@1"] == pytest.approx(np.mean(right))
    with pytest.raises(ValueError, match="label_kind"):
        gradus.evaluate(embeddings, several)


def test_everything_that_is_listed_can_be_asked_for():
    embeddings, labels = batch(200, classes=8)
    found = gradus.evaluate(embeddings, labels, measures="all")
    assert {"nmi", "auc", "nc1", "uniformity", "density", "map", "ndcg@8"} <= set(found)
    assert all(value is None or math.isfinite(value) for value in found.values())
    listed = gradus.measures()
    assert "map@r" in listed and all(len(text) > 20 for text in listed.values())


def test_structure_sees_the_order_inside_classes():
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(6), 20)
    angle = generator.uniform(0, 1, 120)
    tilt = generator.uniform(0, 1, 120)
    embeddings = np.zeros((120, 8))
    embeddings[np.arange(120), labels] = 5.0
    embeddings[:, 6] = angle
    found = gradus.structure(embeddings, labels, factors={"angle": angle, "tilt": tilt})
    assert found["order_preservation.angle"] > 0.99
    assert abs(found["order_preservation.tilt"]) < 0.2
    assert found["density"] > 0 and "recall@1" not in found
    kept = gradus.structure(embeddings, labels, reference=embeddings)
    assert kept["reference_spearman"] == pytest.approx(1.0) and kept["knn_overlap"] == pytest.approx(1.0)
    table = gradus.structure(embeddings, labels, factors=np.stack([angle, tilt], axis=1))
    assert table["order_preservation.factor0"] == found["order_preservation.angle"]
    coarse = gradus.structure(embeddings, labels, categories=labels // 3)
    assert coarse["subclass_recall"] == pytest.approx(1.0)
    # On a circle of 1, 0.05 and 0.95 are 0.1 apart.
    turned = gradus.structure(embeddings, labels, factors={"angle": (angle + 0.5) % 1.0}, circular={"angle": 1.0})
    straight = gradus.structure(embeddings, labels, factors={"angle": angle}, circular={"angle": 1.0})
    assert turned["order_preservation"] == pytest.approx(straight["order_preservation"], abs=1e-6)


def test_cameras_take_out_what_they_saw():
    embeddings, labels = batch(60, classes=5)
    cameras = np.arange(60) % 2
    kept = gradus.evaluate(embeddings, labels, cameras=cameras, measures="recall@1")["recall@1"]
    assert kept < gradus.recall_at_k(embeddings, labels)
    alone = gradus.evaluate(embeddings, labels, cameras=np.zeros(60, dtype=int), measures="recall@1")
    assert alone["lone_queries"] == 60


def test_intervals_hold_the_mean():
    embeddings, labels = batch()
    found = gradus.evaluate(embeddings, labels, bootstrap=200, seed=1)
    low, high = found["intervals"]["map@r"]
    assert low < found["map@r"] < high
    assert found == gradus.evaluate(embeddings, labels, bootstrap=200, seed=1)


def test_distances_differ_where_lengths_do():
    embeddings, labels = batch()
    embeddings *= np.linspace(0.1, 10, 120, dtype=np.float32)[:, None]
    numbers = {kind: gradus.evaluate(embeddings, labels, distance=kind)["map@r"] for kind in ["cosine", "euclidean", "inner-product"]}
    assert len(set(numbers.values())) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, labels: (rows.astype(np.int32), labels), "floating-point"),
        (lambda rows, labels: (rows.astype(np.complex64), labels), "complex64"),
        (lambda rows, labels: (rows[0], labels), r"\[rows, width\]"),
        (lambda rows, labels: (rows[:0], labels[:0]), "empty"),
        (lambda rows, labels: (rows[:, :0], labels), "empty"),
        (lambda rows, labels: (rows, labels[:-1]), "119 labels for 120 embeddings"),
        (lambda rows, labels: (rows, labels.astype(float)), "integers or strings"),
        (lambda rows, labels: (rows, labels[:, None]), r"labels \[rows\]"),
        (lambda rows, labels: ("embeddings", labels), "shape"),
        (lambda rows, labels: (rows * np.float32("nan"), labels), "row 0 .*not finite"),
        (lambda rows, labels: (rows.astype(np.float64) * 1e300, labels), "not finite"),
        (lambda rows, labels: (rows * 0, labels), "zero"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_cannot_be_measured_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        gradus.evaluate(*change(*batch()))


def test_words_and_names_that_do_not_exist_are_refused():
    embeddings, labels = batch()
    for options, message in [
        ({"measures": "recal"}, "recall@K"),
        ({"measures": ["recall@0"]}, "recall@0"),
        ({"measures": "order_preservation"}, "factors"),
        ({"distance": "l2"}, "euclidean"),
        ({"lone_queries": "keep"}, "drop"),
        ({"label_kind": "class"}, "multi-label"),
        ({"factors": {"tilt": [1.0]}, "measures": "order_preservation"}, "factor"),
        ({"factors": {"tilt": labels}, "circular": {"tlit": 1.0}}, "tlit"),
        ({"cameras": labels[:3]}, "cameras"),
    ]:
        with pytest.raises(ValueError, match=message):
            gradus.evaluate(embeddings, labels, **options)
    with pytest.raises(TypeError):
        gradus.evaluate(embeddings, labels, measure="recall@1")


def test_small_memory_and_few_threads_change_nothing():
    embeddings, labels = batch(500)
    expected = gradus.evaluate(embeddings, labels)
    assert gradus.evaluate(embeddings, labels, memory=10_000, threads=1) == expected
