"""Methods that change the network's weights: their state is a network, with the digest of the weights that it began from."""

import copy

from cachebench.files.weights import digest
from cachebench.plugin.method import Method

NETWORK, BASE = "network/", "base"


class Tuned(Method):
    """A method whose fit returns `state_of` a network. It is run in the place of the run's own, and its images are compared
    with those of the run's. It trains on `problem.training()`, and it keeps nothing from an evaluation to the next."""

    training = True
    reuses = False

    def prepare(self, model, state):
        """The network of a state. ValueError in one line where the state is none of this base."""
        if state is None:
            return model
        if wrong := refusal(model, state):
            raise ValueError(f"{self.id()}: {wrong}")
        weights = {name.removeprefix(NETWORK): value for name, value in state.items() if name.startswith(NETWORK)}
        if not weights:  # nothing was trained
            return model
        import torch

        twin = copy.deepcopy(model)
        with torch.no_grad():
            for name, value in twin.state_dict().items():
                value.copy_(torch.tensor(weights[name]))
        return twin

    def store_values(self, spec, state=None):
        return 0


def state_of(base, network=None):
    """{name: tensor} of a network that was trained from `base`; without one it says that nothing was."""
    weights = {} if network is None else {f"{NETWORK}{name}": value for name, value in network.state_dict().items()}
    return weights | {BASE: as_bytes(digest(base))}


def refusal(model, state):
    """None, or how the base of a state is not this network."""
    if BASE not in state:
        return "the fitted state has no digest of its base weights; delete it, and it is fitted again"
    fitted_on, running_on = bytes(state[BASE].tolist()).hex(), digest(model)
    if fitted_on != running_on:
        return f"the fitted state is of the base weights {fitted_on[:12]}, the run's network has {running_on[:12]}"


def as_bytes(text):
    import torch

    return torch.tensor(list(bytes.fromhex(text)), dtype=torch.uint8)
