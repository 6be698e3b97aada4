"""Programs of each library, which run in its own environment: no mcgrad in those of peers, no peer in mcgrad's."""
