"""What the server knows, part by part: each is filled by following topics."""
