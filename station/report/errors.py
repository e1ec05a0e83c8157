"""What can go wrong with a report beside the record itself (`db.errors`)."""


class ReportError(Exception):
    """A report could not be made; one line that says why and what to do."""
