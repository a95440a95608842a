package settings

// PolicyPath is the administrator's policy file.
func PolicyPath() string { return "/Library/Application Support/vmbridge/policy.json" }
