"""Other libraries' connections through a tunnel; each module needs the library that it is named for."""
