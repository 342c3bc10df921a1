"""The client in web frameworks: `starlette` (any ASGI application) and `django`."""
