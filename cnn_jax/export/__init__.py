"""Networks as files for others: StableHLO programs, ONNX graphs, safetensors."""
