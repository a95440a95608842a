//go:build !darwin && !windows

package settings

// PolicyPath is the administrator's policy file.
func PolicyPath() string { return "/etc/vmbridge/policy.json" }
