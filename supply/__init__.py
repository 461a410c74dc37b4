"""Supply chain of a release: locked requirements, licences of dependencies, reproducible wheel and sdist."""
