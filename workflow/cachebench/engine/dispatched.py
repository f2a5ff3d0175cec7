"""FLOPs that torch dispatches, by its own formulas.

Torch's FlopCounterMode finds the same, but imports torch's compiler for it: seconds, which every sampling job would pay."""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

WHOLE = set()  # functions that consist of no others


class Counter(TorchDispatchMode):
    """Within it `flops` adds up."""

    def __init__(self):
        super().__init__()
        self.flops = 0

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # else torch wraps the function below by the compiler's means

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = flop_registry.get(function._overloadpacket)
        if formula is None and function not in WHOLE:  # it may consist of what has one
            with self:
                made = function.decompose(*args, **kwargs)
            if made is not NotImplemented:
                return made
            WHOLE.add(function)
        out = function(*args, **kwargs)
        if formula:
            self.flops += formula(*args, **kwargs, out_val=out)
        return out
