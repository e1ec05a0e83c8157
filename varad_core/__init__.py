"""VarAD as a library: image in, anomaly score and map out. Imports nothing of the other rooms."""
