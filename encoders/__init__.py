"""Slice encoders: a slice transformer with an autoencoder, its training, files and inference.

Arrays in, arrays out: nothing here knows of Kafka, records or an index. torch lives in this package only;
importing the package itself does not load it.
"""
