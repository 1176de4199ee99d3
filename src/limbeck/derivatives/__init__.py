"""Derivatives beyond the first pass back, at the price of fused kernels: forward mode, and second order."""
