"""What methods share that compute some tokens of a branch: taking them out of all, and putting values in their places."""


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
