"""FLOPs as torch's own counter finds them, without its compiler."""

import subprocess
import sys

import torch
from torch.utils.flop_counter import FlopCounterMode

from cachebench.engine.dispatched import Counter


def test_the_count_is_that_of_torchs_own_counter():
    layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    convolution, x = torch.nn.Conv2d(3, 8, 3, stride=2), torch.randn(2, 5, 16)

    def run():
        layer(x).sum()
        convolution(torch.randn(2, 3, 9, 9))
        torch.einsum("bij,bkj->bik", x, x)
        torch.addmm(x[0], x[0] @ x[0].mT, x[0])
        torch.nn.functional.conv_transpose2d(torch.randn(1, 8, 4, 4), convolution.weight)

    with FlopCounterMode(display=False) as expected:
        run()
    for context in (torch.enable_grad, torch.no_grad, torch.inference_mode):
        with context(), Counter() as found:
            run()
        assert found.flops == expected.get_total_flops() > 0


def test_the_compiler_is_not_imported():
    code = "import sys, torch; from cachebench.engine import cost; x = torch.ones(3, 3); print(cost.count_macs(lambda: x @ x));"
    code += "assert 'torch._dynamo' not in sys.modules"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "27"
