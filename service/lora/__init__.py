"""The mathematics of low-rank adapters: tensors in, tensors out."""
