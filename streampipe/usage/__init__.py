"""What each command takes and says of itself. Nothing heavy is imported here: ``--help`` waits for nothing."""
