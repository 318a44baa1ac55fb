"""The error that every reader of data raises."""


class DataError(ValueError):
  """Raised if a data set or one of its files is invalid; names the file."""
