"""The command line as a process against the sandbox on a real socket."""
