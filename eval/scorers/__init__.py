"""One scorer a file. Networks and image libraries are imported when a take is opened, never when a module is."""
