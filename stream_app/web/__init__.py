"""Role `serve`: the HTTP API and the page, answered from state that is kept by following the topics."""
