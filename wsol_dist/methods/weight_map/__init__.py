"""The weight map, methods I and II."""
