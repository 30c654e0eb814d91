"""Products in narrow types: the same as torch's, rounded once."""

import pytest
import torch
from torch import Tensor, nn

from model import linear as linear_module
from model.linear import Linear, matmul


@pytest.fixture(params=[True, False], ids=["widened", "native"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both branches on every machine, whatever its processor can do."""
    monkeypatch.setattr(linear_module, "_cpu_multiplies", lambda dtype: dtype == torch.float32 or not request.param)


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().double()


@pytest.mark.usefixtures("kernels")
@pytest.mark.parametrize("bias", [True, False])
def test_bfloat16_linear_is_the_rounded_product_and_has_its_gradients(bias: bool) -> None:
    torch.manual_seed(0)
    layer = Linear(24, 8, bias=bias, dtype=torch.bfloat16)
    exact = nn.Linear(24, 8, bias=bias, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5, 24, dtype=torch.bfloat16, requires_grad=True)
    wide = rounded(x).requires_grad_()
    upstream = torch.randn(2, 5, 8, dtype=torch.bfloat16)
    out, expected = layer(x), exact(wide)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), expected, rtol=2**-7, atol=1e-2)
    out.backward(upstream)
    expected.backward(upstream.double())
    pairs = [(x, wide), *zip(layer.parameters(), exact.parameters(), strict=True)]
    for ours, theirs in pairs:
        assert ours.grad is not None and theirs.grad is not None and ours.grad.dtype == torch.bfloat16
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=2**-7, atol=2e-2)


@pytest.mark.usefixtures("kernels")
def test_frozen_weights_get_no_gradient_and_inputs_still_do() -> None:
    layer = Linear(24, 8, dtype=torch.bfloat16).requires_grad_(False)
    x = torch.randn(5, 24, dtype=torch.bfloat16, requires_grad=True)
    layer(x).sum().backward()
    assert layer.weight.grad is None
    assert x.grad is not None


@pytest.mark.usefixtures("kernels")
def test_matmul_rounds_the_exact_product() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(3, 4, 16, dtype=torch.bfloat16), torch.randn(3, 16, 5, dtype=torch.bfloat16)
    out = matmul(a, b)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), a.double() @ b.double(), rtol=2**-7, atol=1e-2)
