"""Published figures, accuracies and hardware limits, each with its source, and how to compute the figures again."""
