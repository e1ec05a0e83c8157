"""The shift report: one window of the record as HTML, PDF and CSV."""
