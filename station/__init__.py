"""The station: composes detector, devices and record into one line. No Qt."""
