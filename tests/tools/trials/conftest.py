from trial_parts import desk, keys, quick_disk  # noqa: F401
