"""The benchmark suite: speed beside other projects, utilisation, growth and profiles, by one command."""
