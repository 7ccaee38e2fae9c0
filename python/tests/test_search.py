"""Exact search, k-means and the scores of clusters."""

import threading
import time

import gradus
import numpy as np
import pytest


def rows(count, dim=12, seed=0):
    return np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)


def test_neighbours_are_those_of_a_full_sort():
    queries, gallery = rows(30), rows(200, seed=1)
    scores, indices = gradus.search(queries, gallery, 7)
    unit = lambda values: values / np.linalg.norm(values, axis=1, keepdims=True)
    similarity = unit(queries) @ unit(gallery).T
    assert scores.dtype == np.float32 and indices.dtype == np.int64 and scores.shape == indices.shape == (30, 7)
    assert np.array_equal(indices, np.argsort(-similarity, axis=1)[:, :7])
    assert np.allclose(scores, np.take_along_axis(similarity, indices, axis=1), atol=1e-6)


def test_without_a_gallery_nothing_finds_itself():
    queries = rows(20)
    _, indices = gradus.search(queries, k=50)
    assert indices.shape == (20, 19)
    assert not (indices == np.arange(20)[:, None]).any()


def test_results_are_arrays_of_their_own():
    scores, indices = gradus.search(rows(5), rows(9), 2)
    scores[0] = 0.0
    indices += 1
    assert scores.flags.writeable and scores.flags.c_contiguous and indices.flags.aligned


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((rows(3), rows(3, 5), 1), "12 wide and the gallery is 5 wide"),
        ((rows(3), rows(3), 0), "k is 0"),
        ((rows(1),), "one row only"),
        ((rows(3) * 0, rows(3), 1), "query set is zero"),
        ((rows(3), rows(3) * np.float32("inf"), 1), "gallery set holds a value that is not finite"),
    ],
)
def test_what_cannot_be_searched_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradus.search(*arguments)


def test_kmeans_finds_what_lies_apart():
    labels = np.arange(300) % 3
    values = rows(300, 4) * 0.1 + 10 * np.eye(4, dtype=np.float32)[labels]
    found = gradus.kmeans(values, 3)
    assert found["sizes"] == [100, 100, 100] and found["converged"]
    centroids = np.stack([values[found["assignments"] == cluster].mean(axis=0) for cluster in range(3)])
    assert np.allclose(found["centroids"], centroids, atol=1e-4)
    inertia = ((values - centroids[found["assignments"]]) ** 2).sum()
    assert found["inertia"] == pytest.approx(inertia, rel=1e-4)
    again = gradus.kmeans(values, 3)
    assert np.array_equal(found["assignments"], again["assignments"])
    scores = gradus.cluster_scores(labels, found["assignments"])
    assert scores["nmi"] == pytest.approx(1.0) and scores["purity"] == 1.0
    names = np.array(["a", "b", "c"])[labels]
    assert gradus.cluster_scores(names, found["assignments"]) == scores
    with pytest.raises(ValueError, match="clusters"):
        gradus.kmeans(values, 301)
    with pytest.raises(ValueError, match="describe the same items"):
        gradus.cluster_scores(labels, [0, 1])


def test_other_threads_run_while_rust_works():
    values = rows(6000, 256)
    beats, done = [], threading.Event()

    def beat():
        while not done.is_set():
            beats.append(time.perf_counter())
            time.sleep(0.002)

    thread = threading.Thread(target=beat)
    thread.start()
    begin = time.perf_counter()
    while time.perf_counter() - begin < 0.3:
        start = time.perf_counter()
        gradus.search(values, k=5)
        end = time.perf_counter()
    done.set()
    thread.join()
    assert sum(start < time_of < end for time_of in beats) > 3
