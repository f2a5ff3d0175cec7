"""Some tokens of a branch: chosen among the patches, computed, put back into the value that was kept, and counted."""


def of_patches(patches, extra):
    """The tokens [rows, extra + k] that some patches [rows, k] are, with the `extra` ones that come before all patches."""
    import torch

    first = torch.arange(extra, device=patches.device).expand(len(patches), -1)
    return torch.cat([first, patches + extra], dim=1)


def renewed(kept, run, z, tokens):
    """A branch's kept value [rows, T, D] with that of some tokens [rows, k] computed from its input z [rows, T, D]."""
    places = tokens.unsqueeze(-1).expand(-1, -1, kept.shape[-1])
    return kept.scatter(1, places, run.values(z, tokens))


def site(name, tokens, arch):
    """Where the cost of a branch is counted that is computed for this number of tokens (see `engine.cost`)."""
    if tokens == arch.tokens:
        return name
    return f"attn@{tokens}/{arch.tokens}" if name == "attn" else f"mlp@{tokens}"
