"""What is worked out of samples: pure folds."""
