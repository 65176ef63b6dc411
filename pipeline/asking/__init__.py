"""Questions to a server, or to pushed models without one."""
