"""From folders on disk to sharded batches."""
