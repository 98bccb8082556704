"""Repositories of models for NVIDIA's Triton Inference Server. Needs neither torch nor Triton."""
