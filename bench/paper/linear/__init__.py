"""Linear models: every strategy on the same requests, beside models that were retrained."""
