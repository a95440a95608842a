package isolation

// openFlags: what can block has names of its own on Windows (\\.\pipe\...).
const openFlags = 0
