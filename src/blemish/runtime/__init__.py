"""Exported models: anomaly models that ONNX Runtime or OpenVINO computes, without torch."""
