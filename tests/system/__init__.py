"""The whole program: DVC, servers, kills, a browser."""
