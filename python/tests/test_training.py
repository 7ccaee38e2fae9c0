"""Training with its events, stopping, resuming, embedding."""

import os
import signal
import subprocess
import sys
import textwrap

import gradus
import numpy as np
import pytest

numpy_image = np.random.default_rng(0).integers


def weights(folder):
    return (folder / "model.safetensors").read_bytes()



def write_bmp(path, pixels):
    """A BMP file, which the standard library has no writer for."""
    height, width, _ = pixels.shape
    rows = [row[:, ::-1].tobytes() + b"\0" * (-3 * width % 4) for row in pixels[::-1]]
    body = b"".join(rows)
    head = (54 + len(body)).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    size = b"".join(number.to_bytes(4, "little") for number in (40, width, height)) + b"\1\0\x18\0"
    path.write_bytes(b"BM" + head + size + bytes(24) + body)


def test_a_run_tells_what_it_does(run, small, tmp_path):
    events = []
    again = gradus.train(small, out=tmp_path / "again", on_event=events.append)
    kinds = [event["event"] for event in events]
    assert kinds.count("epoch") == 2 and kinds[-1] == "test" and "data" in kinds and "step" in kinds
    steps = [event for event in events if event["event"] == "step"]
    assert all(np.isfinite(event["loss"]) for event in steps)
    assert events[-1]["measures"]["recall@1"] == again.metrics["recall@1"]
    assert weights(tmp_path / "again") == weights(run.folder)
    assert again.config["train"]["epochs"] == 2 and again.dim == 64


def test_a_preset_brings_what_it_has_for_random_weights(run, small, tmp_path):
    ours = gradus.train({**small, "preset": "gradus", "train.epochs": 0}, out=tmp_path / "run")
    assert ours.config["auxiliary-loss"]["s2sd"]["widths"] == [512]
    assert ours.config["teacher"]["space"] == "thumbnail"
    assert "s2sd" not in run.config["auxiliary-loss"]


def test_events_can_be_taken_one_by_one_and_the_run_stopped_and_resumed(run, small, tmp_path):
    training = gradus.Training(small, out=tmp_path / "stopped")
    for event in training:
        if event["event"] == "step":
            training.stop()
            break
    with pytest.raises(RuntimeError, match="everything is saved"):
        training.result()
    assert next(training, None) is None
    with pytest.raises(FileNotFoundError, match="has no model yet"):
        gradus.load(tmp_path / "stopped")
    resumed = gradus.train(resume=tmp_path / "stopped")
    assert weights(resumed.folder) == weights(run.folder)


def test_an_exception_of_the_listener_stops_the_run(small, tmp_path):
    def listen(event):
        if event["event"] == "step":
            raise KeyError("enough")

    with pytest.raises(KeyError, match="enough"):
        gradus.train({**small, "train.epochs": 500}, out=tmp_path / "run", on_event=listen)
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_stops_a_run_and_saves_it(small, tmp_path):
    script = f"""
        import gradus
        config = {{**{small!r}, "train.epochs": 100000}}
        def listen(event):
            if event["event"] == "step":
                print("step", flush=True)
        try:
            gradus.train(config, out={str(tmp_path / "run")!r}, on_event=listen)
        except KeyboardInterrupt as stopped:
            print("stopped:", stopped)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "step\n"
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and "stopped: interrupted after epoch" in rest and "gradus.train(resume=" in rest
    assert any((tmp_path / "run" / "checkpoints").iterdir())


def test_pictures_paths_and_folders_are_embedded_alike(run, tmp_path):
    pictures = numpy_image(0, 256, (5, 40, 48, 3), dtype=np.uint8)
    for number, picture in enumerate(pictures):
        write_bmp(tmp_path / f"{number}.bmp", picture)
    paths = gradus.list_images(tmp_path)
    assert [os.path.basename(path) for path in paths] == [f"{number}.bmp" for number in range(5)]
    rows = run.embed(pictures)
    assert rows.shape == (5, 64) and rows.dtype == np.float32
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    for form in [paths, tmp_path, list(pictures), pictures[:, :, ::-1][:, :, ::-1]]:
        assert np.allclose(run.embed(form), rows, atol=1e-6)
    assert np.allclose(run.embed(pictures, batch_size=2), rows, atol=1e-5)
    assert np.allclose(run.embed(paths[3]), rows[3:4], atol=1e-5)
    assert np.allclose(run.embed(pictures[3]), rows[3:4], atol=1e-5)
    assert run.embed([]).shape == (0, 64)
    assert np.array_equal(gradus.load(run.folder, device="cpu").embed(pictures), rows)


def test_what_cannot_be_embedded_is_refused(run, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for images, error, message in [
        (tmp_path / "absent.png", FileNotFoundError, "absent.png is no file"),
        ([str(tmp_path / "broken.png")], ValueError, "broken.png"),
        (np.zeros((2, 4, 4, 3)), ValueError, "uint8"),
        (np.zeros((4, 4), dtype=np.uint8), ValueError, r"\[height, width, 3\]"),
        (np.zeros((1, 0, 4, 3), dtype=np.uint8), ValueError, r"\[height, width, 3\]"),
        ([np.zeros((2, 4, 4, 3), dtype=np.uint8)], ValueError, "one picture"),
        (7, ValueError, "uint8"),
    ]:
        with pytest.raises(error, match=message):
            run.embed(images)
    with pytest.raises(ValueError, match="batch_size"):
        run.embed([], batch_size=0)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ValueError, match="holds no image"):
        run.embed(empty)


def test_a_head_is_trained_on_vectors_of_another_model(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 12)
    vectors = (generator.standard_normal((8, 80))[labels] + 0.5 * generator.standard_normal((96, 80))).astype(np.float32)
    np.save(tmp_path / "E.npy", vectors)
    np.save(tmp_path / "L.npy", labels)
    run = gradus.train(
        {
            "preset": "proxy-anchor",
            "embeddings": tmp_path / "E.npy",
            "labels": tmp_path / "L.npy",
            "data": {"train_classes": "0-3", "test_classes": "4-7"},
            "sampler.m-per-class": {"classes": 4, "samples": 4},
            "model.width": 64,
            "train.epochs": 3,
        },
        out=tmp_path / "head",
    )
    assert run.embed(vectors).shape == (96, 64)
    with pytest.raises(ValueError, match="vectors of another model"):
        run.embed(str(tmp_path))
    with pytest.raises(ValueError, match="numbers each"):
        run.embed(vectors[:, :79])


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"train.epoch": 3}, ValueError, "did you mean `epochs`"),
        ({"train": {"epochs": "many"}}, ValueError, "many"),
        ({"preset": "gradu"}, ValueError, "gradus"),
        ({"data": "no/such/folder"}, FileNotFoundError, "no/such/folder"),
        ({"train.epochs": object()}, ValueError, "type object"),
        ({"train..epochs": 3}, ValueError, "no key"),
        ({3: 3}, ValueError, "must be a string"),
        ({"labels": "L.npy"}, ValueError, "without embeddings"),
        ("absent.toml", FileNotFoundError, "absent.toml"),
        (7, ValueError, "expected a dict"),
    ],
)
def test_wrong_configurations_are_refused_before_anything_runs(config, error, message, tmp_path):
    with pytest.raises(error, match=message):
        gradus.train(config, out=tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        gradus.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="holds no run"):
        gradus.train(resume=tmp_path / "absent")


def test_a_file_is_a_configuration_too(run, small, tmp_path):
    again = gradus.train(run.folder / "config.toml", out=tmp_path / "run")
    assert weights(again.folder) == weights(run.folder)
    with pytest.raises(RuntimeError, match="already holds a run"):
        gradus.train(small, out=run.folder)
