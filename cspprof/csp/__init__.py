"""The theory of cross stage partial networks."""
