"""The same as ``tasks.lag``, for whoever looks for the stream's matters here."""

from tasks.lag import StreamLag, read_lag

__all__ = ["StreamLag", "read_lag"]
