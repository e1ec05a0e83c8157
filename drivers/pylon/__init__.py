"""A Basler camera, and pylon's own camera emulator, which is the same API."""

from drivers.pylon.camera import PylonCamera

__all__ = ["PylonCamera"]
