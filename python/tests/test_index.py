"""Image search."""

import shutil

import gradus
import numpy as np
import pytest


def vectors(rows=50, dim=8):
    return np.random.default_rng(0).standard_normal((rows, dim)).astype(np.float32)


@pytest.mark.parametrize("engine", ["flat", "qdrant-edge"])
def test_what_was_put_in_is_found(engine, tmp_path):
    rows = vectors()
    classes = [["heron", "wren", None][number % 3] for number in range(50)]
    payload = [{"price": number, "new": number % 2 == 0} for number in range(50)]
    made = gradus.Index.create(
        tmp_path / "birds", rows, ids=[f"bird {number}" for number in range(50)], classes=classes, payload=payload, engine=engine
    )
    assert len(made) == 50
    del made
    index = gradus.Index.open(tmp_path / "birds")
    assert (index.engine, index.dim, len(index), index.notice) == (engine, 8, 50, None)
    assert "bird 3" in index and "bird 50" not in index
    hits = index.search(rows[7], k=5)
    assert hits[0]["id"] == "bird 7" and hits[0]["score"] == pytest.approx(1.0, abs=1e-6)
    assert hits[0]["payload"] == {"price": 7, "new": False} and hits[0]["class"] == "wren"
    _, indices = gradus.search(rows[7:8], rows, 5)
    assert [hit["id"] for hit in hits] == [f"bird {row}" for row in indices[0]]
    several = index.search(rows[:3].astype(np.float64), k=2)
    assert [answer[0]["id"] for answer in several] == ["bird 0", "bird 1", "bird 2"]
    herons = index.search(rows[7], k=50, filter=["class=heron", "price<10"])
    assert {hit["id"] for hit in herons} == {"bird 0", "bird 3", "bird 6", "bird 9"}
    assert len(index.search(rows[7], k=50, threshold=0.999)) == 1
    answer = index.identify(-rows[7], k=1, threshold=0.99)
    assert answer["unknown"] and answer["class"] is None and len(answer["hits"]) == 1
    assert index.identify(rows[6], k=1)["class"] == "heron"


def test_mistakes_are_refused(tmp_path):
    rows = vectors()
    with pytest.raises(FileNotFoundError, match="holds no index"):
        gradus.Index.open(tmp_path / "absent")
    with pytest.raises(ValueError, match="engine is 'faiss'|engine is \"faiss\""):
        gradus.Index.create(tmp_path / "a", rows, engine="faiss")
    with pytest.raises(ValueError, match="ids has 2 entries for 50 vectors"):
        gradus.Index.create(tmp_path / "a", rows, ids=["x", "y"])
    index = gradus.Index.create(tmp_path / "b", rows, engine="flat")
    for call, message in [
        (lambda: index.search(rows[0, :5]), "width 5"),
        (lambda: index.search(rows[0] * 0), "query"),
        (lambda: index.search(rows[0], filter="price<3"), "price"),
        (lambda: index.search(rows[0].astype(int)), "floating-point"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()


def test_an_index_outlives_its_working_directory_and_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = vectors()
    index = gradus.Index.create("here", rows)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert index.search(rows[1], k=1)[0]["id"] == "1"
    assert index.folder == tmp_path / "here"
    shutil.rmtree(tmp_path / "here")
    del index
