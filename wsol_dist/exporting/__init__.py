"""Write a trained model that can be shipped: weights, labels, card, ONNX and torch.export graphs.

The command `export` imports it.
"""
