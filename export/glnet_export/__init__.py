"""From a GLNet checkpoint to a bundle: trace to ONNX, check, compare with PyTorch, publish."""
