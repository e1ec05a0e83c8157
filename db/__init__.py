"""The record: rows, images and their queries. Imports nothing of the other rooms and no Qt."""
