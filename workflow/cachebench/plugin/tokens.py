"""Some tokens of a branch: taken out of all, put back in their places, and counted."""


def taken(values, tokens):
    """Of values [rows, all, width] those of `tokens` [rows, k]: [rows, k, width]."""
    return values.gather(1, spread(tokens, values))


def put(values, tokens, some):
    """values [rows, all, width] with `some` [rows, k, width] at `tokens` [rows, k]; another tensor."""
    return values.scatter(1, spread(tokens, values), some)


def spread(tokens, values):
    return tokens.unsqueeze(-1).expand(-1, -1, values.shape[-1])


def with_extras(patches, extras):
    """The tokens [rows, extras + k] of `patches` [rows, k]: before them the extra ones of the backbone, as U-ViT's label and
    time, which `patches` does not count."""
    if not extras:
        return patches
    import torch

    first = torch.arange(extras, device=patches.device).expand(len(patches), -1)
    return torch.cat([first, patches + extras], dim=1)


def site(name, tokens, arch):
    """Where the cost of a branch is counted that is computed for this number of tokens (see `engine.cost`)."""
    if tokens == arch.tokens:
        return name
    return f"attn@{tokens}/{arch.tokens}" if name == "attn" else f"mlp@{tokens}"
