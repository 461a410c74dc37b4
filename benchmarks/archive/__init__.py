"""Archives on a Ray cluster: throughput, unit costs, and runs whose processes are killed."""
