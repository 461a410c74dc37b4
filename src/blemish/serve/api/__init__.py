"""HTTP interface of the server: routes, limits, access, and errors as answers."""
