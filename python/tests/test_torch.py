"""Beside PyTorch and pytorch-metric-learning, where they are installed."""

import importlib.util
import pathlib

import gradus
import numpy as np
import pytest

torch = pytest.importorskip("torch")

EXAMPLE = pathlib.Path(__file__).resolve().parents[1] / "examples" / "torch_loss.py"


def example():
    spec = importlib.util.spec_from_file_location("torch_loss", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def batch(rows=16, dim=6, classes=4):
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(rows, dim, dtype=torch.float64, generator=generator)
    return torch.nn.functional.normalize(embeddings), torch.arange(rows) % classes


def test_gradients_pass_the_check_of_torch():
    embeddings, labels = batch()
    embeddings.requires_grad_()
    loss = gradus.losses.NtXent()
    function = example().GradusLoss
    assert torch.autograd.gradcheck(lambda rows: 3 * function.apply(rows, labels, loss), [embeddings])
    proxies = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    loss = gradus.losses.ProxyAnchor(classes=4)
    function = example().GradusProxyLoss
    assert torch.autograd.gradcheck(lambda rows, own: function.apply(rows, own, labels, loss), [embeddings, proxies])


def test_tensors_are_read_where_they_lie():
    embeddings, labels = batch()
    single = embeddings.float()
    assert gradus.evaluate(single, labels) == gradus.evaluate(single.numpy(), labels.numpy())
    with pytest.raises(Exception, match="requires grad"):
        gradus.evaluate(single.requires_grad_(), labels)


@pytest.mark.parametrize(
    ("ours", "theirs", "settings"),
    [
        ("MultiSimilarity", "MultiSimilarityLoss", {"alpha": 2, "beta": 40, "base": 0.5}),
        ("Contrastive", "ContrastiveLoss", {"pos_margin": 0.1, "neg_margin": 0.9}),
        ("TripletMargin", "TripletMarginLoss", {"margin": 0.2}),
        ("NtXent", "NTXentLoss", {"temperature": 0.1}),
        ("Circle", "CircleLoss", {"m": 0.4, "gamma": 80}),
        ("SupCon", "SupConLoss", {"temperature": 0.2}),
    ],
)
def test_losses_are_those_of_pytorch_metric_learning(ours, theirs, settings):
    reference = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels = batch()
    embeddings.requires_grad_()
    expected = getattr(reference, theirs)(**settings)(embeddings, labels)
    expected.backward()
    value, gradient = getattr(gradus.losses, ours)(**settings)(embeddings.detach().numpy(), labels.numpy())
    assert value == pytest.approx(expected.item(), rel=1e-7)
    assert np.allclose(gradient, embeddings.grad.numpy(), rtol=1e-6, atol=1e-9)


def test_mined_tuples_are_interchangeable():
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    reference = pytest.importorskip("pytorch_metric_learning.losses")
    embeddings, labels = batch()
    for ours, theirs in [("BatchHard", "BatchHardMiner"), ("MultiSimilarity", "MultiSimilarityMiner")]:
        own = getattr(gradus.miners, ours)()(embeddings, labels)
        other = getattr(miners, theirs)()(embeddings, labels)
        assert len(own) == len(other)
        expected = reference.TripletMarginLoss()(embeddings, labels, other).item()
        for mined in (own, other):
            value, _ = gradus.losses.TripletMargin(margin=0.05)(embeddings, labels, mined=mined)
            assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("classes", [20, 400])
def test_measures_agree_with_accuracy_calculator(classes):
    module = pytest.importorskip("pytorch_metric_learning.utils.accuracy_calculator")
    generator = np.random.default_rng(classes)
    labels = generator.integers(0, classes, 1500)
    embeddings = generator.standard_normal((classes, 64))[labels] + 2.0 * generator.standard_normal((1500, 64))
    embeddings = (embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)).astype(np.float32)
    names = {"precision_at_1": "recall@1", "r_precision": "r_precision", "mean_average_precision_at_r": "map@r"}
    calculator = module.AccuracyCalculator(include=tuple(names), k="max_bin_count", device=torch.device("cpu"))
    expected = calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))
    found = gradus.evaluate(embeddings, labels, lone_queries="drop")
    for theirs, ours in names.items():
        assert found[ours] == pytest.approx(expected[theirs], abs=1e-6), ours
