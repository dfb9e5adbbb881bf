"""Spans of searches that are traced already, told to an OpenTelemetry collector. Off unless an endpoint is named."""
