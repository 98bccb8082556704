"""GLNet in PyTorch: the network, the body model, checkpoints.

"Global-to-Pixel Regression for Human Mesh Recovery", ECCV 2024. What the poster of the paper does not state is a field of
:class:`glnet.config.GLNetConfig`; ``docs/network.md`` says of every choice where it comes from.
"""
