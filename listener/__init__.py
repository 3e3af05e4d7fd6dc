"""The stream: the only room that speaks Redis Streams."""
