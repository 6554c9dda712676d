"""What the studio does, without the interface: runs, queue, sessions, caches."""
