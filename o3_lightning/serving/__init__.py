"""The HTTP server: OpenAI's interface, the gate as an endpoint, and the requests of a store."""
