"""Devices: cameras and outputs. Imports nothing of the other rooms and no Qt."""
