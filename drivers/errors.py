"""What a device can do wrong.

    DriverError
    |-- CameraError
    |   |-- CameraNotFound      no such camera, or its folder is missing: the configuration or a cable
    |   |-- CameraLost          it was there and is gone: reconnect
    |   `-- CameraSettingsError a setting was refused or reads back differently: never run on it
    |-- OutputError             a reject gate or lamp did not take its value
    `-- PlcError                the PLC does not answer, or its registers do not hold the handshake

Messages name the device, what was requested, what was found, and what to do.
A single failed buffer is no exception: it is a `Grab` with an error (see `drivers.types`).
"""


class DriverError(Exception):
    """Any device's failure."""


class CameraError(DriverError):
    """A camera's failure."""


class CameraNotFound(CameraError):
    """The configured camera does not exist or cannot be opened."""


class CameraLost(CameraError):
    """The camera was open and is gone."""


class CameraSettingsError(CameraError):
    """A setting was refused, or reads back differently from what was written."""


class OutputError(DriverError):
    """A digital output could not be written."""


class PlcError(DriverError):
    """The PLC does not answer, or its registers do not hold the handshake."""
