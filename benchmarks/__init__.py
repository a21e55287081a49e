"""What nbcr costs, beside dd, cloudpickle, dill and (where it is installed) CRIU, on the same state in the same run."""
