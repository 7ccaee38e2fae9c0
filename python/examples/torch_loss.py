# %% [markdown]
# Any loss of gradus in a training loop of PyTorch: value and gradient come from Rust, the rest stays as it is.

# %%
import torch

import gradus


class GradusLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embeddings, labels, loss):
        result = loss.evaluate(embeddings.detach().cpu().numpy(), labels.cpu().numpy())
        ctx.save_for_backward(torch.from_numpy(result.gradient).to(embeddings.device))
        return embeddings.new_tensor(result.value)

    @staticmethod
    def backward(ctx, upstream):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


class GradusProxyLoss(torch.autograd.Function):
    """For losses with proxies, which are a parameter of yours."""

    @staticmethod
    def forward(ctx, embeddings, proxies, labels, loss):
        loss.parameters = proxies.detach().cpu().numpy()
        result = loss.evaluate(embeddings.detach().cpu().numpy(), labels.cpu().numpy())
        gradients = (result.gradient, result.parameters_gradient)
        ctx.save_for_backward(*(torch.from_numpy(gradient).to(embeddings.device) for gradient in gradients))
        return embeddings.new_tensor(result.value)

    @staticmethod
    def backward(ctx, upstream):
        at_embeddings, at_proxies = ctx.saved_tensors
        return upstream * at_embeddings, upstream * at_proxies, None, None


# %%
def main(steps=60):
    """Trains a linear head on noisy classes twice, and prints how far the nearest neighbours are right before and after."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 20
    features = torch.randn(20, 64, generator=generator)[labels] + 2.0 * torch.randn(200, 64, generator=generator)
    for name in ["multi-similarity", "proxy-anchor"]:
        torch.manual_seed(0)
        head = torch.nn.Linear(64, 32)
        if name == "proxy-anchor":
            loss = gradus.losses.ProxyAnchor(classes=20)
            proxies = torch.nn.Parameter(torch.randn(20, 32))
            parameters, value_of = [*head.parameters(), proxies], lambda x: GradusProxyLoss.apply(x, proxies, labels, loss)
        else:
            loss = gradus.losses.MultiSimilarity(beta=40)
            parameters, value_of = list(head.parameters()), lambda x: GradusLoss.apply(x, labels, loss)
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        before = gradus.recall_at_k(head(features).detach(), labels)
        for step in range(steps):
            value = value_of(torch.nn.functional.normalize(head(features)))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            first = value.item() if step == 0 else first
        after = gradus.recall_at_k(head(features).detach(), labels)
        print(f"{name}: loss {first:.3f} to {value.item():.3f}, Recall@1 {before:.3f} to {after:.3f}")


# %%
if __name__ == "__main__":
    main()
