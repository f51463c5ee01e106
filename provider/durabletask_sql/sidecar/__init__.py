"""The gRPC edge: servicers, connected workers, conversion of requests, errors to status codes."""
