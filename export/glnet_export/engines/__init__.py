"""TensorRT engines from ONNX graphs, without torch."""
