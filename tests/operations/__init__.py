"""Operations: what CI, caches and remotes do, rehearsed on the sample (`make operations`)."""
