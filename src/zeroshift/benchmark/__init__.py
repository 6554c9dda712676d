"""What every benchmark shares: variants, paired statistics, tables, executors; and benchmarks on any generator."""
