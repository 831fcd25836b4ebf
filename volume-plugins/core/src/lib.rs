//! Mounts and loop devices, seen and made.
