"""The error that every reader of data raises."""


class DataError(ValueError):
  """A data set or one of its files is not as it must be; names the file."""
