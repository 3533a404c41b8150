"""Preprocessing ops for tf.data, named in a string; needs no JAX."""
